"""Latencies in cycles, from the edge that registers an input to the edge that registers the result.

The only place that knows them: the RTL asserts its pipelines against these constants, the cycle
engine adds them up. A latency of n means: input presented in cycle t, output valid in cycle t + n.
"""

#: Cycles of one fp32 addition; also what the data wave spends per PE row.
HOP = 4

#: Cycles of the exact bf16 x bf16 product in a PE.
PRODUCT_LATENCY = 1

#: The accumulator foot, every mode: fp32 addition, or exact conversion to int32 and addition.
FOOT_LATENCY = HOP


def array_latency(dim):
    """Cycles from a row at the array's input (`i_valid`) to its sums at the output (`o_valid`).

    One cycle into the first column's registers; PE row 0 only multiplies, every other row adds;
    column c starts c cycles late, and the output is de-skewed, so every column waits for the last
    one. The array is busy for as many cycles after the last valid input.
    """
    return 1 + PRODUCT_LATENCY + HOP * (dim - 1) + dim - 1


#: Cycles from a tile's first weight row to the first row that may use it, if weights come gapless.
WEIGHT_LEAD = 2

#: Cycles of STORE's epilogue: integer bias, to fp32, scale, bias, clamp, to int32, saturate.
EPILOGUE_LATENCY = 1 + 2 + 3 + HOP + 1 + 2 + 1
#: The same, where nothing is added, scaled, clamped or rounded to an integer: a float made
#: canonical, or an integer; to bf16, or saturate. `isa.extent_table.SHORT` says where.
EPILOGUE_SHORT = 1 + 1

# LOAD, STORE, MATMUL and the sequencer: docs/microarchitecture.md says what each one means.

#: Local memories: read request to data at the reader.
MEM_READ = 2

#: A register slice at the chip's boundary, each way. LOAD's constants include it: on the unit's own
#: port AR comes AXI_SLICE earlier, and an R beat AXI_SLICE later, than on the chip's pins.
AXI_SLICE = 1
#: LOAD: first slot of a burst to its AR on the pins (one register, one slice).
LOAD_AR = 1 + AXI_SLICE
#: LOAD: beat on the pins to its last local write; also to done and read_release. One slice; merge
#: into a chunk; a row's last chunk lags one cycle; take off the high part; convert into a unit.
LOAD_WRITE = 4 + AXI_SLICE
#: LOAD: fill slot to its pass cycle. The unpacker has an instruction two cycles after its grant;
#: the pass cycle is counted before the slice, as that of a beat on the pins.
LOAD_FILL = 1 - AXI_SLICE
#: LOAD: instructions granted and not done; one still counts in its done cycle.
LOAD_INFLIGHT = 8
#: LOAD: bursts between AR and last R beat. Never binds at a read latency of 60.
LOAD_OUTSTANDING = 64
#: LOAD: request of `ldw` to its AR on the pins; its last beat on the pins to `ldw_done`.
LDW_AR = 1 + AXI_SLICE
LDW_DONE = 1 + AXI_SLICE


#: LOAD: slots before a gathering instruction's first beat: start, read, index, clamp, partial
#: products, sum, queue.
LOAD_GATHER = 1 + MEM_READ + 1 + 3 + 1


def load_drain(c0):
    """LOAD: cycles after a transposing instruction's last slot in which its last units are written.

    After the last unit of its last run: one cycle into the transposer, one to read, `c0` units.
    """
    return c0 + 2


def ldw_latency(bus_bytes, read_latency):
    """Cycles from LOAD's `ldw_valid` (LOAD quiet) to `ldw_done`; a narrow bus takes two beats."""
    return LDW_AR + read_latency + max(1, 4 // bus_bytes) - 1 + LDW_DONE


#: MATMUL: last row's slot to read_release.
MATMUL_READ = 1
#: MATMUL: least cycles of a pass, so that an accumulator row is written before it is read again.
MATMUL_MIN_PERIOD = 7
#: MATMUL: passes granted and not done.
MATMUL_INFLIGHT = 8


def matmul_done(dim):
    """MATMUL: cycles from a pass's last row slot to done, its last accumulator write.

    Memory, one register of conversion, array, foot.
    """
    return MEM_READ + 1 + array_latency(dim) + FOOT_LATENCY


#: Fetch: first cycle in which the address generator can request.
FETCH_START = 0
#: Fetch: request of a line to its AR on the pins; a beat on the pins to when it can be read.
FETCH_AR = AXI_SLICE
FETCH_WRITE = AXI_SLICE + 1
#: Cycle after a discard's EXEC cycle in which the generator can request the target's line.
FETCH_RESTART = 1
#: Sequencer: EXTENT cycles besides `isa.extent.extent_cycles`.
SEQ_EXTENT = 0
#: Sequencer: last done pulse to the first cycle that a fence, halt, ldw or stw sees as quiet.
SEQ_QUIET = 1
#: Sequencer: last EXEC cycle of `halt` (of a fault: quiet) to the last counted cycle.
SEQ_HALT = 0
SEQ_FAULT = 0

#: Sequencer: first cycle in which nothing can move to the last counted cycle of a DEADLOCK.
SEQ_DEADLOCK = 1

#: Local memories: a write at t is seen by a read request at t + MEM_WRITE.
MEM_WRITE = 1

#: STORE: instructions granted and not done, at most.
STORE_INFLIGHT = 8

#: STORE: slots before each row of a scatter; the first one reads the row's index. Read, index and
#: product in registers, address.
STORE_INDEX = 1 + MEM_READ + 3

#: From a slot to read_release: its read is on the memory's port.
STORE_READ = 1

#: From a slot to the done pulse of a scratchpad store; its write is on the port one cycle earlier.
#: This is the short way through the epilogue.
STORE_SPAD = STORE_READ + MEM_READ + 1 + EPILOGUE_SHORT + 2

#: From a slot to its W beat on the chip's pins (boundary slice included).
STORE_W = STORE_SPAD + 1 + AXI_SLICE

#: What the long way takes longer.
STORE_LONG = EPILOGUE_LATENCY - EPILOGUE_SHORT

#: From the last write response on the pins to the done pulse: boundary slice, order of dones.
STORE_B = AXI_SLICE + 1

#: VECTOR: rows in flight, one slot each for every word; what a slot writes is there 8 slots later.
VECTOR_ROWS = 8
#: VECTOR: slots between the last one that fetches the micro-kernel and the first word's first one:
#: request, read, buffer written; buffer read, word in its register.
VECTOR_LEAD = 1 + MEM_READ + 2
#: VECTOR: from the last slot to read_release: its load is on the memory's port.
VECTOR_READ = 1
#: VECTOR: from the last slot to done: registers read, converted, on the port; one cycle later.
VECTOR_DONE = 4
#: VECTOR: a lane's ALU, every operation: form, multiply, shift, add, normalize, round.
VECTOR_ALU_LATENCY = 6
#: VECTOR: instructions granted and not done.
VECTOR_INFLIGHT = 2

#: `stw`: from `stw_valid` to the last W beat on the pins, any bus width; from B to `stw_done`.
STW_W = 3 + AXI_SLICE
STW_B = AXI_SLICE


def stw_latency(write_latency):
    """Cycles from STORE's `stw_valid` (STORE quiet) to `stw_done`."""
    return STW_W + write_latency + STW_B
