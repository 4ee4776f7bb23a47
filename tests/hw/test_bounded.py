"""The limit that tests/hw/conftest.py sets on simulations."""

import gc

import pytest
from amaranth.hdl import Module, Signal
from amaranth.sim import Simulator


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_simulation_that_waits_forever_fails():
    m, done, toggle = Module(), Signal(), Signal()
    m.d.sync += toggle.eq(~toggle)
    sim = Simulator(m)
    sim.add_clock(1e-6)

    async def testbench(ctx):
        await ctx.tick().until(done)

    sim.add_testbench(testbench)
    with pytest.raises(AssertionError, match=r"did not end within 0\.1 simulated seconds"):
        sim.run()
    del sim, testbench  # its coroutine still waits, which is said when it is collected
    gc.collect()
