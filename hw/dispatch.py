"""What the sequencer hands on: queue entries, accesses to semaphores, words of DRAM."""

from amaranth.hdl import unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from tilewright.hw.fetch import PC_BITS
from tilewright.hw.payload import payload
from tilewright.isa.config import BANKS
from tilewright.isa.table import SYNC

ID_BITS = 32
UNITS = ("load", "matmul", "vector", "store")  # in the order of `Unit`
#: Masks that travel with an instruction (MATMUL's come from its front).
ENTRY_MASKS = {
    "load": ("spad_r", "spad_w", "acc_w"),
    "matmul": (),
    "vector": ("spad_r", "spad_w", "acc_r", "acc_w"),
    "store": ("spad_r", "acc_r", "spad_w"),
}
SYNC_LAYOUT = data.StructLayout({f.name: unsigned(f.bits) for f in SYNC})


def entry(name: str) -> data.StructLayout:
    """Layout of a queue entry of one unit."""
    return data.StructLayout(
        {
            "instr": payload(name),
            "sync": SYNC_LAYOUT,
            "masks": data.StructLayout({p: BANKS for p in ENTRY_MASKS[name]}),
            "id": ID_BITS,
            "pc": PC_BITS,
        }
    )


class DispatchSignature(wiring.Signature):
    """From the sequencer (as written) to one queue: push, entry, and whether it is full or quiet.

    `quiet`: queue, head and pipeline hold nothing, in this cycle; a push at t shows from t + 1.
    `idle`: the pipeline holds nothing.
    `still`: the pipeline holds nothing, and there is no head or one whose waits do not hold.
    """

    def __init__(self, name: str):
        super().__init__(
            {
                "push": Out(1),
                "entry": Out(entry(name)),
                "full": In(1),
                "quiet": In(1),
                "idle": In(1),
                "still": In(1),
            }
        )


PC = data.StructLayout({"pc": PC_BITS, "exists": 1})  # an instruction's address, if there is one


class SemaphoreSignature(wiring.Signature):
    """The sequencer's access to a semaphore: post adds n, take subtracts it, `enough` compares."""

    def __init__(self):
        super().__init__(
            {"sem": Out(5), "n": Out(8), "post": Out(1), "take": Out(1), "enough": In(1)}
        )


class WordSignature(wiring.Signature):
    """A word of DRAM through LOAD's (STORE's) port, only while that unit is quiet.

    `valid` is one pulse; `addr`, `data_out` hold until the `done` pulse; `data_in` comes with it.
    """

    def __init__(self):
        super().__init__(
            {
                "valid": Out(1),
                "addr": Out(32),
                "data_out": Out(32),
                "data_in": In(32),
                "done": In(1),
            }
        )
