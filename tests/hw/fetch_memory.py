"""A memory behind the instruction port, for the tests of the fetcher and the sequencer."""

import random


class Memory:
    """An AXI read slave: bursts in order, `latency` cycles, `stall` per cent of refused cycles."""

    def __init__(self, bus, latency, stall, seed=0):
        self.bus, self.latency, self.stall = bus, latency, stall
        self.rng = random.Random(seed)
        self.beats = []  # (earliest cycle, data, last)
        self.requests = []  # (cycle, address)
        self.generator = 0

    def ready(self, ctx):
        """Drive this cycle's inputs."""
        self.stalls = [self.rng.random() * 100 < self.stall for _ in range(2)]
        ctx.set(self.bus.arready, not self.stalls[0])

    def beat(self, ctx, t):
        valid = bool(self.beats) and self.beats[0][0] <= t and not self.stalls[1]
        ctx.set(self.bus.rvalid, valid)
        if valid:
            _, data, last = self.beats.pop(0)
            ctx.set(self.bus.rdata, data)
            ctx.set(self.bus.rlast, last)

    def accept(self, ctx, t, word):
        """Take a request after everything has settled; `word` gives 16 bytes at an address."""
        if not (ctx.get(self.bus.arvalid) and ctx.get(self.bus.arready)):
            return
        address, length = ctx.get(self.bus.araddr), ctx.get(self.bus.arlen) + 1
        assert length == 16 and ctx.get(self.bus.arsize) == 4 and ctx.get(self.bus.arburst) == 1
        assert address % 256 == 0
        self.requests.append((t, address))
        begin = max(t, self.generator)
        self.generator = begin + length
        for i in range(length):
            self.beats.append((begin + self.latency + i, word(address + 16 * i), i == length - 1))
