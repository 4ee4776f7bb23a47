"""A simulated chip with its DRAM: memory, allocator, and one worker thread.

All that touches the DRAM (transfers, programs) runs on the device's worker in the order in which it
was submitted, while Python goes on. So an array's bytes may be reused as soon as Python forgets the
array: whatever reads them was submitted before.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tilewright import sim
from tilewright.config import (
    DRAM_BYTES,
    default_config,
    default_engine,
    engine_named,
    memory_fraction,
    preallocated,
)
from tilewright.isa.config import ChipConfig, parse_config
from tilewright.memory_pool import MemoryPool

_numbers = itertools.count()
_living: weakref.WeakSet[Device] = weakref.WeakSet()
_chosen: ContextVar[Device | None] = ContextVar("device", default=None)
_first_lock = threading.Lock()
_first: list[Device] = []


class Device:
    """One chip.

    Parameters
    ----------
    config : a preset's name ("tw4", "tw8", "tw16"), "dim=8,spad_kib=32,acc_kib=8[,array=int8]", or
        a ChipConfig; None is ``TILEWRIGHT_CONFIG``.
    engine : "functional", "cycle" or "rtl"; None is ``TILEWRIGHT_ENGINE``.
    dram_bytes : size of its DRAM; of it ``TILEWRIGHT_MEM_FRACTION`` may be used.
    """

    def __init__(
        self,
        config: str | ChipConfig | None = None,
        engine: str | None = None,
        dram_bytes: int = DRAM_BYTES,
    ):
        self.config = default_config() if config is None else parse_config(config)
        self.engine = default_engine() if engine is None else engine_named(engine)
        self.pool = MemoryPool(dram_bytes, memory_fraction(), preallocated())
        self.memory = sim.Memory(self.pool.end if preallocated() else 0)
        self.constants: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
        self.id = next(_numbers)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=f"tilewright-{self.id}")
        _living.add(self)

    @property
    def dram_bytes(self) -> int:
        """Size of the DRAM."""
        return self.pool.size

    def memory_stats(self) -> dict[str, int]:
        """Return what its DRAM holds, under the names of JAX's `Device.memory_stats`.

        Sizes are bytes, among them `bytes_in_use`, `peak_bytes_in_use`, `bytes_limit`,
        `largest_free_block_bytes`. `pool_bytes` is how far
        the pool has grown: to what was needed, or with ``TILEWRIGHT_PREALLOCATE`` to its limit.
        """
        return self.pool.stats()

    def submit(self, task: Callable[..., Any], *args: Any) -> Future[Any]:
        """Run a task on the worker, after everything submitted before."""
        return self._worker.submit(task, *args)

    def synchronize(self) -> None:
        """Wait until all work submitted so far is done."""
        self.submit(lambda: None).result()

    def __repr__(self) -> str:
        return f"Device(id={self.id}, config={self.config.name!r}, engine={self.engine!r})"


def current_device() -> Device:
    """Return the device on which work starts: `default_device`'s, else the process's first one."""
    chosen = _chosen.get()
    if chosen is not None:
        return chosen
    with _first_lock:
        if not _first:
            _first.append(Device())
        return _first[0]


def devices() -> list[Device]:
    """Return all devices that exist, the default one first."""
    first = current_device()
    return [first, *sorted((d for d in _living if d is not first), key=lambda d: d.id)]


@contextmanager
def default_device(device: Device) -> Iterator[Device]:
    """Let work within the ``with`` block run on a device."""
    if not isinstance(device, Device):
        raise TypeError(f"default_device needs a tw.Device, not {device!r}")
    token = _chosen.set(device)
    try:
        yield device
    finally:
        _chosen.reset(token)
