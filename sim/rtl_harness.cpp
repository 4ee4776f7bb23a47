// The world around the chip's RTL: clocks, reset, AXI memories and the host port, all in C++ so that a
// simulated cycle costs no call into Python. Python drives it through the extern "C" functions (ctypes).
//
// Every output of the chip is a register, so one cycle is: look at the outputs and at the inputs that were
// driven, note the handshakes, give the edge, then drive the inputs of the next cycle. The gated clocks
// only toggle when the chip's registered busy output asks for it.
//
// Ideal memory: first read beat `read_latency` cycles after the address, one beat per cycle, in order; the write
// response `write_latency` cycles after a burst's last beat. With `stall` > 0 every channel also stalls at random.

#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <unordered_map>
#include <vector>

#include "Vtilewright.h"
#include "Vtilewright___024root.h"
#include "verilated.h"
#ifdef TW_TRACE
#include "rtl_wave.h"
#endif

namespace {

constexpr uint32_t kPageBits = 16;
constexpr uint32_t kPage = 1u << kPageBits;

struct Memory {
    std::unordered_map<uint32_t, std::unique_ptr<uint8_t[]>> pages;
    uint32_t last_number = 0;
    uint8_t* last = nullptr;

    uint8_t* page(uint32_t address) {
        uint32_t number = address >> kPageBits;
        if (last && number == last_number) return last;
        auto& slot = pages[number];
        if (!slot) slot.reset(new uint8_t[kPage]());
        last_number = number;
        return last = slot.get();
    }
    void copy(uint32_t address, uint8_t* bytes, uint64_t n, bool write) {
        while (n) {
            uint64_t part = kPage - (address & (kPage - 1));
            if (part > n) part = n;
            uint8_t* at = page(address) + (address & (kPage - 1));
            if (write) std::memcpy(at, bytes, part);
            else std::memcpy(bytes, at, part);
            address += part, bytes += part, n -= part;
        }
    }
};

struct Burst {
    uint32_t address;
    uint32_t beats;
    uint64_t when;
};

struct Event {  // matches the dtype in rtl.py
    uint32_t kind;  // 0 begin, 1 end (sequencer), 2 start, 3 done (units)
    uint32_t unit;
    uint32_t value;  // pc of a begin, id of a start
    uint32_t pad;
    uint64_t cycle;
};

// The falling edges. Nothing is clocked by them, so it is enough that the model believes to have seen them; a
// Verilator that names what it remembers otherwise evaluates the model.
template <class Root>
auto fall(Root* root, Vtilewright&, int) -> decltype(root->__Vtrigprevexpr___TOP__clk__0, void()) {
    root->__Vtrigprevexpr___TOP__clk__0 = 0;
    root->__Vtrigprevexpr___TOP__clk_array__0 = 0;
    root->__Vtrigprevexpr___TOP__clk_epilogue__0 = 0;
    root->__Vtrigprevexpr___TOP__clk_load__0 = 0;
    root->__Vtrigprevexpr___TOP__clk_vector__0 = 0;
    root->__Vtrigprevexpr___TOP__clk_store__0 = 0;
    root->__Vtrigprevexpr___TOP__clk_sequencer__0 = 0;
}
template <class Root>
void fall(Root*, Vtilewright& top, long) {
    top.eval();
}

struct Chip {
    VerilatedContext context;
    Vtilewright top{&context};
    Memory memory;
    std::vector<Event> events;
    std::deque<Burst> instr, reads, writes, responses;
    uint32_t write_done = 0;    // beats of the front burst already written
    std::deque<std::vector<uint8_t>> early;  // beats that came before their address: data, then strobe
    uint64_t now = 0, run_cycle = 0, quiet = 0;
    uint64_t read_latency = 60, write_latency = 20;
    uint32_t stall = 0;  // per cent of cycles in which a channel stalls
    uint64_t random = 1;
    bool always_clock = false, record = true, running = false, error_read = false, error_write = false;
    uint64_t array_cycles = 0;
#ifdef TW_TRACE
    Wave wave;
#endif

    bool stalls() {
        if (!stall) return false;
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        return (random >> 20) % 100 < stall;
    }

    void write_beat(const uint8_t* data, uint64_t strobe, bool last, uint32_t bytes) {
        Burst& burst = writes.front();
        uint32_t at = (burst.address & ~(bytes - 1)) + write_done * bytes;
        for (uint32_t i = 0; i < bytes; i++)
            if (strobe >> i & 1) *(memory.page(at + i) + ((at + i) & (kPage - 1))) = data[i];
        write_done++;
        if (last) {
            responses.push_back({0, 0, now + write_latency});
            writes.pop_front();
            write_done = 0;
        }
    }

    void handshakes() {
        if (top.instr_arvalid && top.instr_arready)
            instr.push_back({top.instr_araddr, top.instr_arlen + 1u, now + read_latency});
        if (top.instr_rvalid && top.instr_rready) pop(instr, 16);
        if (top.data_arvalid && top.data_arready)
            reads.push_back({top.data_araddr & ~(TW_BUS_BYTES - 1u), top.data_arlen + 1u, now + read_latency});
        if (top.data_rvalid && top.data_rready) pop(reads, TW_BUS_BYTES);
        if (top.data_awvalid && top.data_awready) {
            writes.push_back({top.data_awaddr, top.data_awlen + 1u, now});
        }
        if (top.data_wvalid && top.data_wready) {
            std::vector<uint8_t> beat(TW_BUS_BYTES + 9);
            uint64_t strobe = top.data_wstrb;
            std::memcpy(beat.data(), &top.data_wdata, TW_BUS_BYTES);
            std::memcpy(beat.data() + TW_BUS_BYTES, &strobe, 8);
            beat[TW_BUS_BYTES + 8] = top.data_wlast;
            early.push_back(std::move(beat));
        }
        while (!early.empty() && !writes.empty()) {
            auto& beat = early.front();
            uint64_t strobe;
            std::memcpy(&strobe, beat.data() + TW_BUS_BYTES, 8);
            write_beat(beat.data(), strobe, beat[TW_BUS_BYTES + 8], TW_BUS_BYTES);
            early.pop_front();
        }
        if (top.data_bvalid && top.data_bready) responses.pop_front();
    }

    void pop(std::deque<Burst>& queue, uint32_t bytes) {
        Burst& burst = queue.front();
        burst.address += bytes;
        if (--burst.beats == 0) queue.pop_front();
    }

    template <class Data>
    void drive_read(std::deque<Burst>& queue, uint8_t& valid, uint8_t& ready, Data& data, uint8_t& last,
                    uint8_t& resp, uint32_t bytes, bool held, bool error) {
        bool show = !queue.empty() && queue.front().when <= now && (held || !stalls());
        valid = show;
        if (!show) return;
        memory.copy(queue.front().address, reinterpret_cast<uint8_t*>(&data), bytes, false);
        last = queue.front().beats == 1;
        resp = error ? 2 : 0;
        (void)ready;
    }

    void drive(bool instr_held, bool data_held, bool b_held) {
        top.instr_arready = !stalls();
        top.data_arready = !stalls();
        top.data_awready = !stalls();
        top.data_wready = !stalls();
        drive_read(instr, top.instr_rvalid, top.instr_rready, top.instr_rdata, top.instr_rlast, top.instr_rresp,
                   16, instr_held, false);
        drive_read(reads, top.data_rvalid, top.data_rready, top.data_rdata, top.data_rlast, top.data_rresp,
                   TW_BUS_BYTES, data_held, error_read);
        top.data_bvalid = !responses.empty() && responses.front().when <= now && (b_held || !stalls());
        top.data_bresp = error_write ? 2 : 0;
    }

    void trace() {
        if (!top.trace_run) {
            if (running) running = false;
            return;
        }
        if (!running) running = true, run_cycle = 0;
        else run_cycle++;
        if (!record) return;
        if (top.trace_seq_begin) events.push_back({0, 4, top.trace_seq_pc, 0, run_cycle});
        if (top.trace_seq_end) events.push_back({1, 4, 0, 0, run_cycle});
        uint32_t bits = top.trace_start | top.trace_done << 4;
        if (!bits) return;
        const uint32_t ids[4] = {top.trace_id_load, top.trace_id_matmul, top.trace_id_vector, top.trace_id_store};
        for (uint32_t u = 0; u < 4; u++) {
            if (bits >> u & 1) events.push_back({2, u, ids[u], 0, run_cycle});
            if (bits >> (4 + u) & 1) events.push_back({3, u, 0, 0, run_cycle});
        }
    }

    void step() {
        bool instr_held = top.instr_rvalid && !top.instr_rready;
        bool data_held = top.data_rvalid && !top.data_rready;
        bool b_held = top.data_bvalid && !top.data_bready;
        bool array = always_clock || top.busy_array, epilogue = always_clock || top.busy_epilogue;
        array_cycles += array;
        handshakes();
        top.clk = 1;
        top.clk_array = array;
        top.clk_epilogue = epilogue;
        top.clk_load = always_clock || top.busy_load;
        top.clk_vector = always_clock || top.busy_vector;
        top.clk_store = always_clock || top.busy_store;
        top.clk_sequencer = always_clock || top.busy_sequencer;
        top.eval();
        top.clk = 0;
        top.clk_array = 0;
        top.clk_epilogue = 0;
        top.clk_load = 0;
        top.clk_vector = 0;
        top.clk_store = 0;
        top.clk_sequencer = 0;
        fall(top.rootp, top, 0);
        now++;
        trace();
        drive(instr_held, data_held, b_held);
#ifdef TW_TRACE
        if (wave.on()) wave.step(top, events, running, run_cycle);
#endif
    }

    void reset() {
        top.rst = 1;
        for (int i = 0; i < 8; i++) {
            always_clock = true;
            step();
        }
        always_clock = false;
        top.rst = 0;
        for (int i = 0; i < 4; i++) step();
    }

    bool host_write(uint32_t address, uint32_t value) {
        top.host_awaddr = address, top.host_awvalid = 1;
        top.host_wdata = value, top.host_wstrb = 15, top.host_wvalid = 1;
        top.host_bready = 1;
        for (int i = 0; i < 1000; i++) {
            bool aw = top.host_awvalid && top.host_awready, w = top.host_wvalid && top.host_wready;
            bool b = top.host_bvalid;
            step();
            if (aw) top.host_awvalid = 0;
            if (w) top.host_wvalid = 0;
            if (b) return top.host_bready = 0, true;
        }
        return false;
    }

    bool host_read(uint32_t address, uint32_t* value) {
        top.host_araddr = address, top.host_arvalid = 1, top.host_rready = 1;
        for (int i = 0; i < 1000; i++) {
            bool ar = top.host_arvalid && top.host_arready, r = top.host_rvalid;
            *value = top.host_rdata;
            step();
            if (ar) top.host_arvalid = 0;
            if (r) return top.host_rready = 0, true;
        }
        return false;
    }
};

}  // namespace

extern "C" {

Chip* tw_new(uint64_t read_latency, uint64_t write_latency, uint32_t stall, uint64_t seed) {
    Chip* chip = new Chip;
    chip->read_latency = read_latency, chip->write_latency = write_latency;
    chip->stall = stall, chip->random = seed * 2654435761u + 88172645463325252ull;
#ifdef TW_TRACE
    chip->context.traceEverOn(true);
    chip->wave.prepare(chip->top);
#endif
    chip->reset();
    return chip;
}
void tw_free(Chip* chip) { delete chip; }
void tw_copy(Chip* chip, uint32_t address, uint8_t* bytes, uint64_t n, int write) {
    chip->memory.copy(address, bytes, n, write);
}
int tw_host_write(Chip* chip, uint32_t address, uint32_t value) { return chip->host_write(address, value); }
int tw_host_read(Chip* chip, uint32_t address, uint32_t* value) { return chip->host_read(address, value); }
int tw_irq(Chip* chip) { return chip->top.irq; }
void tw_options(Chip* chip, int always_clock, int record, int error_read, int error_write) {
    chip->always_clock = always_clock, chip->record = record;
    chip->error_read = error_read, chip->error_write = error_write;
}

// Step until the chip stops. 0: it stopped; 1: the cycle limit; 2: nothing moved for `patience` cycles.
int tw_run(Chip* chip, uint64_t limit, uint64_t patience) {
    auto& top = chip->top;
    for (uint64_t i = 0; i < 64 && !chip->running; i++) chip->step();
    uint64_t still = 0;
    size_t seen = chip->events.size();
    for (uint64_t i = 0; chip->running && i < limit; i++) {
        chip->step();
        bool moved = chip->events.size() != seen || top.busy_array || top.data_rvalid || top.data_wvalid ||
                     top.instr_rvalid || top.data_bvalid || !chip->reads.empty() || !chip->responses.empty();
        seen = chip->events.size();
        still = moved ? 0 : still + 1;
        if (still > patience) return 2;
    }
    return chip->running ? 1 : 0;
}
void tw_spin(Chip* chip, uint64_t cycles) {
    for (uint64_t i = 0; i < cycles; i++) chip->step();
}
uint64_t tw_pages(Chip* chip, uint32_t* addresses) {
    uint64_t n = 0;
    for (auto& page : chip->memory.pages) {
        if (addresses) addresses[n] = page.first << kPageBits;
        n++;
    }
    return n;
}
uint64_t tw_array_cycles(Chip* chip) { return chip->array_cycles; }
uint64_t tw_events(Chip* chip, const Event** events) {
    *events = chip->events.data();
    return chip->events.size();
}
#ifdef TW_TRACE
uint64_t tw_wave_header(Chip* chip, const char** text) {
    *text = chip->wave.declarations().data();
    return chip->wave.declarations().size();
}
void tw_wave_attach(Chip* chip, const WaveOptions* options) { chip->wave.attach(*options); }
#endif
}
