"""DRAM: dense and paged parts, strided access, comparison."""

import numpy as np
import pytest
from tilewright.sim.memory import DENSE_LIMIT, PAGE, AddressError, Memory


@pytest.mark.parametrize(
    "at", [0, 5, PAGE - 3, DENSE_LIMIT - 7, DENSE_LIMIT + PAGE - 2, 0xFFFFFF00]
)
def test_memory_reads_what_was_written(at):
    m = Memory()
    data = np.arange(1, 21, dtype=np.uint8)
    m.write(at, data)
    assert m.read(at, 20).tolist() == list(range(1, 21))
    assert m.read(at - 4 if at else 20, 4).tolist() == [0] * 4


def test_memory_write_takes_any_array_and_bytes():
    m = Memory()
    m.write(0, np.array([[1.0, 2.0]], np.float32))
    m.write(8, b"\x01\x02")
    assert m.read(0, 10).tobytes() == np.array([1, 2], np.float32).tobytes() + b"\x01\x02"


@pytest.mark.parametrize("base", [1000, DENSE_LIMIT - 100, DENSE_LIMIT + 1000])
def test_memory_gathers_strided_runs(base):
    m = Memory()
    m.write(base - 200, (np.arange(1200) % 251).astype(np.uint8))
    got = m.gather(base, (2, 3), (-70, 11), 4)
    want = [
        [[(200 - 70 * i + 11 * j + b) % 251 for b in range(4)] for j in range(3)] for i in range(2)
    ]
    assert got.tolist() == want


@pytest.mark.parametrize("base", [1000, DENSE_LIMIT - 20, DENSE_LIMIT + 1000])
@pytest.mark.parametrize("stride", [-9, 2, 0, 5])
def test_memory_scatters_in_order(base, stride):
    m = Memory()
    data = np.arange(1, 13, dtype=np.uint8).reshape(3, 4)
    m.scatter(base, (3,), (stride,), data)
    want = {}
    for i in range(3):
        for b in range(4):
            want[base + i * stride + b] = 4 * i + b + 1
    low = min(want)
    got = m.read(low, max(want) - low + 1)
    assert {low + i: int(x) for i, x in enumerate(got) if x} == want


def test_memory_compare_names_the_first_difference():
    m = Memory()
    m.write(70000, b"\x01")
    m.write(DENSE_LIMIT + 9, b"\x02")
    other = m.snapshot()
    assert m.compare(other) is None
    other.write(DENSE_LIMIT + 9, b"\x03")
    assert m.compare(other) == DENSE_LIMIT + 9
    m.write(69999, b"\x01")
    assert m.compare(other) == 69999 == other.compare(m)


def test_memory_refuses_addresses_outside_32_bits():
    with pytest.raises(AddressError, match="0x0 to 0xffffffff"):
        Memory().read((1 << 32) - 2, 4)
    with pytest.raises(AddressError, match="must stay"):
        Memory().gather(10, (4,), (-8,), 4)
