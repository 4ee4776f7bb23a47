"""`tw.Array`: an array in the chip's DRAM, whose value may still be on its way.

It is immutable and dense. Operators compute on the chip, each as one small program (`eager`);
what the chip cannot do is an error, never NumPy's work. NumPy sees it through ``__array__``, which
waits for the value.
"""

from __future__ import annotations

import threading
import weakref
from concurrent.futures import Future
from typing import Any

import numpy as np
from tilewright.compiler import trace, tree
from tilewright.compiler.core import ShapedArray
from tilewright.compiler.errors import DtypeError
from tilewright.compiler.operators import ArrayOperators
from tilewright.compiler.source import user_source
from tilewright.device import Device, current_device
from tilewright.hooks import install
from tilewright.memory_pool import Block

install()

_living: weakref.WeakValueDictionary[int, Array] = weakref.WeakValueDictionary()
_living_lock = threading.Lock()


class DeletedError(RuntimeError):
    """An array was used after `delete` or after its memory was donated."""


def _operator(name: str, reflected: bool = False) -> Any:
    def method(self: Array, other: Any) -> Any:
        from tilewright.compiler import ops  # late: most programs use operators only while tracing

        if not ops.is_operand(other):
            return NotImplemented
        from tilewright.eager import operate

        return operate(name, *((other, self) if reflected else (self, other)))

    return method


class Array(ArrayOperators):
    """An array on a device; `device_put` and jitted functions make it, not its constructor."""

    __array_priority__ = 1000
    __tw_array__ = True
    __hash__ = None  # type: ignore[assignment]
    __slots__ = ("__weakref__", "_block", "_future", "_host", "aval", "device")

    __add__, __radd__ = _operator("add"), _operator("add", True)
    __sub__, __rsub__ = _operator("subtract"), _operator("subtract", True)
    __mul__, __rmul__ = _operator("multiply"), _operator("multiply", True)
    __truediv__, __rtruediv__ = _operator("divide"), _operator("divide", True)
    __pow__, __rpow__ = _operator("power"), _operator("power", True)
    __floordiv__, __rfloordiv__ = _operator("floor_divide"), _operator("floor_divide", True)
    __mod__, __rmod__ = _operator("remainder"), _operator("remainder", True)
    __divmod__, __rdivmod__ = _operator("divmod"), _operator("divmod", True)
    __matmul__, __rmatmul__ = _operator("matmul"), _operator("matmul", True)

    def __init__(self, device: Device, aval: ShapedArray, block: Block, future: Future[Any]):
        self.device, self.aval = device, aval
        self._block: Block | None = block
        self._future = future
        self._host: np.ndarray | None = None
        with _living_lock:
            _living[id(self)] = self

    @property
    def shape(self) -> tuple[int, ...]:
        return self.aval.shape

    @property
    def dtype(self) -> np.dtype:
        return self.aval.dtype

    @property
    def weak_type(self) -> bool:
        return self.aval.weak_type

    @property
    def block(self) -> Block:
        """Its place in DRAM.

        **Raises** DeletedError.
        """
        if self._block is None:
            raise DeletedError(
                f"{self.aval} must not be used after delete() or donation (at {user_source()})"
            )
        return self._block

    @property
    def address(self) -> int:
        """Its first byte in DRAM."""
        return self.block.address

    def is_ready(self) -> bool:
        """Tell whether its value is there."""
        return self._future.done()

    def block_until_ready(self) -> Array:
        """Wait for its value; raises what went wrong in computing it."""
        self.block  # noqa: B018 (checks that it is not deleted)
        self._future.result()
        return self

    def delete(self) -> None:
        """Give its DRAM back now; it cannot be used afterwards."""
        self._block = self._host = None

    def is_deleted(self) -> bool:
        """Tell whether `delete` was called, or its memory donated."""
        return self._block is None

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        block = self.block
        if self._host is None:
            self._future.result()
            raw = self.device.submit(self.device.memory.read, block.address, self.nbytes).result()
            value = raw.view(self.dtype).reshape(self.shape)
            value.setflags(write=False)
            self._host = value
        if dtype is not None and np.dtype(dtype) != self.dtype:
            return self._host.astype(dtype)
        return self._host.copy() if copy else self._host

    def item(self, *args: int) -> Any:
        """Return one element as a Python scalar."""
        return np.asarray(self).item(*args)

    def tolist(self) -> Any:
        """Return nested lists of Python scalars."""
        return np.asarray(self).tolist()

    def copy(self) -> Array:
        """Return the array: it is immutable."""
        return self

    def __deepcopy__(self, memo: Any) -> Array:
        return self

    def __reduce__(self) -> Any:
        return put_leaf, (np.asarray(self), None, self.weak_type)

    def view_with(self, aval: ShapedArray) -> Array:
        """Return an array over the same bytes (same size) with another aval."""
        self.block.shared = True
        return Array(self.device, aval, self.block, self._future)

    def __iter__(self) -> Any:
        """Rows as arrays on the device; one transfer fetches them all."""
        len(self)  # raises for rank 0
        host, weak = np.asarray(self), self.weak_type
        return (put_leaf(row, self.device, weak) for row in host)

    def __bool__(self) -> bool:
        return bool(np.asarray(self))

    def __int__(self) -> int:
        return int(np.asarray(self))

    def __float__(self) -> float:
        return float(np.asarray(self))

    def __index__(self) -> int:
        return np.asarray(self).__index__()

    def __format__(self, spec: str) -> str:
        return format(np.asarray(self)[()], spec) if not self.shape else format(str(self), spec)

    def __str__(self) -> str:
        return str(np.asarray(self))

    def __repr__(self) -> str:
        if self._block is None:
            return f"Array({self.aval}, deleted)"
        body = np.array2string(np.asarray(self), separator=", ", prefix="Array(")
        if not self.size:
            body = f"[], shape={self.shape}"
        weak = ", weak_type=True" if self.weak_type else ""
        return f"Array({body}, dtype={self.dtype}{weak})"


def put_leaf(
    value: Any, device: Device | None = None, weak: bool | None = None, label: str | None = None
) -> Array:
    """Return one array or number as an Array on a device (the default one).

    **Raises** DtypeError, OutOfMemoryError.
    """
    if isinstance(value, Array):
        if device is None or value.device is device:
            value.block  # noqa: B018 (checks that it is not deleted)
            return value
        weak = value.weak_type if weak is None else weak
    device = device or current_device()
    aval = trace.aval_of(value)
    if weak is not None:
        aval = aval.update(weak_type=weak)
    data = np.array(trace.concrete(value), aval.dtype, order="C")  # a copy: its owner may change it
    block = device.pool.alloc(aval.nbytes, label or str(user_source()))
    future = device.submit(device.memory.write, block.address, data)
    return Array(device, aval, block, future)


def device_put(x: Any, device: Device | None = None) -> Any:
    """Return a pytree of arrays and numbers as Arrays in a device's DRAM; does not wait."""
    if device is not None and not isinstance(device, Device):
        raise TypeError(f"device must be a tw.Device, not {device!r}")
    paths, treedef = tree.flatten_with_path(x)
    label = str(user_source())
    leaves = []
    for path, leaf in paths:
        try:
            leaves.append(put_leaf(leaf, device, label=label))
        except DtypeError as error:
            raise DtypeError(f"device_put: x{tree.keystr(path)}: {error} (at {label})") from None
    return tree.unflatten(treedef, leaves)


def live_arrays(device: Device | None = None) -> list[Array]:
    """Return all arrays that still hold memory of a device, or of all devices, oldest first."""
    with _living_lock:
        found = list(_living.values())
    return [a for a in found if not a.is_deleted() and device in (None, a.device)]


def device_get(x: Any) -> Any:
    """Return a pytree with its Arrays as NumPy arrays; waits for them."""
    return tree.map(lambda leaf: np.array(leaf) if isinstance(leaf, Array) else leaf, x)


def block_until_ready(x: Any) -> Any:
    """Wait for all Arrays of a pytree; return the pytree."""
    for leaf in tree.leaves(x):
        if isinstance(leaf, Array):
            leaf.block_until_ready()
    return x
