// Waves of a run, in the traced build of the model only. Verilator prints value changes as VCD text into memory;
// they go straight into an FST writer whose functions Python brings along (waveforms/fst_file.py), together with
// what the RTL does not hold: for each unit the assembly of the instruction that it works on.
//
// Ten units of time are a cycle. The signals at 10 c are those of cycle c as RunResult counts cycles; the trace
// ports report that cycle's events one edge later, so texts are written just before time goes on.

#include <cstdio>
#include <string>
#include <unordered_map>

#include "verilated_vcd_c.h"

struct WaveOptions {  // matches rtl_wave.py
    void* writer;
    void (*time)(void*, uint64_t);
    void (*value)(void*, uint32_t, const void*);
    void (*text)(void*, uint32_t, const void*, uint32_t);
    const uint32_t* handles;  // by VCD code; 0: not wanted
    const uint32_t* widths;   // by VCD code
    uint64_t codes;
    uint32_t clock;               // handle
    const uint32_t* lanes;        // 5 units x 4 handles: instruction, oldest, source, in_flight (16 bits)
    const char* const* assembly;  // by pc
    const char* const* source;    // by pc
    uint64_t count;               // instructions
    uint64_t first, last;         // cycles that are kept
};

class Wave final : private VerilatedVcdFile {
    static constexpr uint32_t kLanes = 5;  // four units and the sequencer
    struct Lane {
        std::deque<uint32_t> flight;  // ids, the oldest first
        uint32_t gone = 0;            // how many of them ended in the cycle before
        std::string instruction, oldest, source;
    };

    VerilatedVcdC vcd{this};
    WaveOptions to{};
    Lane lanes[kLanes];
    std::vector<uint32_t> pcs;  // by id
    std::string header, bits;
    std::unordered_map<uint32_t, std::string> initial;  // by handle, before time begins
    size_t seen = 0;
    uint64_t dumps = 0;
    bool attached = false, begun = false;

    bool open(const std::string&) override { return true; }
    void close() override {}
    ssize_t write(const char* text, ssize_t size) override {
        if (attached) changes(text, text + size);
        else header.append(text, size);
        return size;
    }

    // Lines "0<code>", "b0101 <code>" and others; whole lines only, as every cycle is flushed.
    void changes(const char* at, const char* end) {
        for (const char* stop; at < end; at = stop + 1) {
            stop = static_cast<const char*>(std::memchr(at, '\n', end - at));
            if (!stop) return;
            if (*at == '0' || *at == '1') change(at, 1, at + 1, stop);
            if (*at != 'b') continue;
            const char* space = static_cast<const char*>(std::memchr(at, ' ', stop - at));
            if (space) change(at + 1, space - at - 1, space + 1, stop);
        }
    }
    void change(const char* value, size_t size, const char* code, const char* stop) {
        int64_t number = -1;
        while (stop > code) number = 94 * (number + 1) + (*--stop - '!');
        if (number < 0 || uint64_t(number) >= to.codes || !to.handles[number]) return;
        uint32_t width = to.widths[number];
        bits.assign(width > size ? width - size : 0, '0');
        bits.append(value, size);
        if (begun) to.value(to.writer, to.handles[number], bits.c_str() + (bits.size() - width));
        else initial[to.handles[number]] = bits.substr(bits.size() - width);
    }

    std::string line(uint32_t id) const {
        uint64_t pc = id < pcs.size() ? pcs[id] : ~0ull;
        std::string head = "#" + std::to_string(id);
        return pc < to.count ? head + " @" + std::to_string(pc) + " " + to.assembly[pc] : head;
    }
    void put(uint32_t handle, std::string& old, const std::string& text, bool always) {
        if (text != old || always) to.text(to.writer, handle, text.data(), text.size());
        old = text;
    }
    // What a lane shows from now on: the youngest and the oldest instruction in flight.
    void show(uint32_t unit, bool always) {
        Lane& lane = lanes[unit];
        const uint32_t* handle = to.lanes + 4 * unit;
        bool idle = lane.flight.empty();
        uint64_t pc = idle || lane.flight.back() >= pcs.size() ? ~0ull : pcs[lane.flight.back()];
        put(handle[0], lane.instruction, idle ? "" : line(lane.flight.back()), always);
        put(handle[1], lane.oldest, idle ? "" : line(lane.flight.front()), always);
        put(handle[2], lane.source, pc < to.count ? to.source[pc] : "", always);
        char count[17] = {};
        for (int i = 0; i < 16; i++) count[i] = '0' + (lane.flight.size() >> (15 - i) & 1);
        to.value(to.writer, handle[3], count);
    }
    bool retire(Lane& lane) {
        bool some = lane.gone;
        for (; lane.gone; lane.gone--) lane.flight.pop_front();
        return some;
    }

    void begin(uint64_t cycle) {
        to.time(to.writer, 10 * cycle);
        begun = true;
        for (auto& [handle, value] : initial) to.value(to.writer, handle, value.c_str());
        to.value(to.writer, to.clock, "1");
        for (uint32_t u = 0; u < kLanes; u++) retire(lanes[u]), show(u, true);
    }
    void dump() {  // the printer's own time must only rise
        vcd.dump(++dumps);
        vcd.flush();
    }
    // Instructions of `cycle`: what ended in the one before is gone, what starts is shown.
    template <class Events>
    void follow(const Events& events, bool kept) {
        bool touched[kLanes] = {};
        for (uint32_t u = 0; u < kLanes; u++) touched[u] = retire(lanes[u]);
        for (; seen < events.size(); seen++) {
            const auto& e = events[seen];
            Lane& lane = lanes[e.unit];
            touched[e.unit] = true;
            if (e.kind == 0) pcs.push_back(e.value), lane.flight.push_back(pcs.size() - 1);
            else if (e.kind == 2) lane.flight.push_back(e.value);
            else lane.gone++;
        }
        for (uint32_t u = 0; kept && u < kLanes; u++)
            if (touched[u]) show(u, false);
    }

   public:
    ~Wave() override {  // what the printer still holds belongs to no cycle
        attached = false;
        vcd.close();
    }
    void prepare(Vtilewright& top) {
        top.trace(&vcd, 99);
        vcd.open("");
        vcd.flush();
    }
    const std::string& declarations() const { return header; }
    void attach(const WaveOptions& options) { to = options, attached = true; }
    bool on() const { return attached; }

    // After a step: the model holds the state of cycle + 1 (of cycle 0 while `running` is false), and `events` end
    // with those of `cycle`.
    template <class Events>
    void step(Vtilewright& top, const Events& events, bool running, uint64_t cycle) {
        if (!running) {
            seen = events.size();
            if (to.first == 0 && !begun) top.eval(), dump();  // before time begins: the initial values
            return;
        }
        if (to.first == 0 && !begun) begin(0);
        bool kept = begun && cycle <= to.last;
        follow(events, kept);
        if (kept) to.time(to.writer, 10 * cycle + 5), to.value(to.writer, to.clock, "0");
        uint64_t next = cycle + 1;
        if (next < to.first || next > to.last) return;
        top.eval();  // logic behind the inputs that have just been driven
        if (begun) to.time(to.writer, 10 * next), to.value(to.writer, to.clock, "1");
        dump();
        if (!begun) begin(next);
    }
};
