"""No unit's simulation runs forever: a stream that never becomes ready is a failure, not a hang."""

import pytest
from amaranth.sim import Simulator

LIMIT = 0.1  # simulated seconds: 100,000 cycles of the 1 us clock, ten times the longest test


@pytest.fixture(autouse=True)
def bounded(monkeypatch):
    run = Simulator.run

    def run_bounded(self):
        async def watchdog(ctx):
            await ctx.delay(LIMIT)
            raise AssertionError(f"the simulation did not end within {LIMIT} simulated seconds")

        self.add_testbench(watchdog, background=True)
        run(self)

    monkeypatch.setattr(Simulator, "run", run_bounded)
