"""Chains: element-wise equations folded, one by one, into STORE's epilogue, bit for bit.

A `Chain` is a kernel under construction: a source, the epilogue so far, and the dtype of the value
that the epilogue computes now. Each method returns the longer chain, or None where the hardware's
fixed order (int32 bias, scale, bias, clamp, round, zero point) or a rounding in between forbids it;
the caller then ends the kernel and starts another.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import numpy as np
from tilewright.compiler import core
from tilewright.compiler.kernels import Contract, Convolve, Epilogue, Map, Vector, View

BYTES = (core.int8, core.uint8, core.bool_)


@dataclass(frozen=True)
class Chain:
    """A kernel whose epilogue still grows.

    Parameters
    ----------
    shape, dtype : of the value at this point, as the jaxpr sees it.
    rounded : None, or "bf16" (rounded to bfloat16 at the end) or "integer" (rounded to nearest
        even, still float32 to the jaxpr); only a clamp, a zero point and a conversion may follow.
    eqns : the equations that it computes.
    """

    source: Contract | Convolve | Map
    shape: tuple[int, ...]
    dtype: np.dtype
    epilogue: Epilogue
    rounded: str | None = None
    eqns: tuple[int, ...] = ()

    @staticmethod
    def start(source: Contract | Convolve | Map, shape: tuple[int, ...], dtype: np.dtype) -> Chain:
        """A chain that does nothing yet; `dtype` is the source's (sums: int32 or float32)."""
        integer = dtype not in core.FLOATS
        return Chain(source, shape, dtype, Epilogue(dtype, int_path=integer))

    @property
    def cols(self) -> int:
        """Columns of the source; vectors have one element for each."""
        return self.source.cols

    @property
    def rows(self) -> int:
        """Rows that share a vector."""
        return prod(self.shape) // max(self.cols, 1)

    def _with(
        self, dtype: np.dtype | None = None, rounded: str | None = None, **changes: object
    ) -> Chain:
        dtype = self.dtype if dtype is None else dtype
        epilogue = replace(self.epilogue, out=dtype, **changes)  # type: ignore[arg-type]
        return replace(self, dtype=dtype, epilogue=epilogue, rounded=rounded or self.rounded)

    @property
    def _integer_source(self) -> bool:
        return self.source.is_integer

    def _is_free(self, *later: str) -> bool:
        """Whether none of the named steps is taken yet."""
        return self.rounded is None and all(getattr(self.epilogue, name) is None for name in later)

    def _rounding(self) -> str | None:
        """What an arithmetic step in this dtype does to its result."""
        return "bf16" if self.dtype == core.bfloat16 else None

    def scale(self, v: Vector) -> Chain | None:
        """Multiply by a float per-column vector or number."""
        if self.dtype not in core.FLOATS or not self._is_free("bias", "lo", "hi"):
            return None
        sign = not isinstance(v, View) and abs(v) == 1
        old = self.epilogue.scale
        if old is not None:  # only a change of sign can be merged without another rounding
            if isinstance(old, View) or not sign:
                return None
            v = old * v
        return self._with(scale=v, rounded=None if sign else self._rounding())

    def add(self, v: Vector) -> Chain | None:
        """Add a per-column vector or number of the chain's dtype."""
        if self.dtype in core.FLOATS:
            if self.rounded == "integer":
                return self._zero_point(v)
            if not self._is_free("bias", "lo", "hi"):
                return None
            return self._with(bias=v, rounded=self._rounding())
        if self.dtype not in (core.int32, core.uint32) or not self.epilogue.int_path:
            return None
        if not self._is_free("ibias", "lo", "hi"):
            return None
        return self._with(ibias=v)

    def _zero_point(self, v: Vector) -> Chain | None:
        """An integer added after rounding; only if NaN, which must end as 0, cannot occur."""
        if isinstance(v, View) or not np.isfinite(v) or v != int(v) or abs(v) > 0x7FFF:
            return None
        if self.epilogue.zero_point or (v and not self._is_finite()):
            return None
        return self._with(zero_point=int(v))

    def _is_finite(self) -> bool:
        parts = (self.epilogue.scale, self.epilogue.bias)
        known = all(p is None or (not isinstance(p, View) and np.isfinite(p)) for p in parts)
        return self._integer_source and known

    def clamp(self, lo: float | int | None, hi: float | int | None) -> Chain | None:
        """max(x, lo), then min(that, hi); None leaves a side open."""
        if self.dtype == core.uint32 or any(v is not None and v != v for v in (lo, hi)):
            return None
        e = self.epilogue
        if not e.int_path and self.dtype not in core.FLOATS:
            return None  # already converted to an integer
        zero = e.zero_point
        bounds = [v for v in (lo, hi) if v is not None and np.isfinite(v)]
        if self.rounded == "integer" and any(v != int(v) for v in bounds):
            return None
        low, high = e.lo, e.hi
        if lo is not None:
            low = lo - zero if low is None else _max(low, lo - zero)
            high = high if high is None else _max(high, lo - zero)
        if hi is not None:
            low = low if low is None else _min(low, hi - zero)
            high = hi - zero if high is None else _min(high, hi - zero)
        return self._with(lo=low, hi=high)

    def round(self) -> Chain | None:
        """Round a float32 value to the nearest integer, ties to even."""
        if self.dtype != core.float32 or self.rounded is not None:
            return None
        return self._with(rounded="integer")

    def convert(self, dtype: np.dtype) -> Chain | None:
        """Convert as XLA does, where the hardware's conversion is the same."""
        old = self.dtype
        if old == dtype:
            return self
        if old in core.FLOATS:
            return self._convert_float(dtype)
        e = self.epilogue
        if not e.int_path or core.bool_ == dtype:
            return None
        if dtype in core.FLOATS:
            if old == core.uint32 or e.lo is not None or e.hi is not None:
                return None
            rounded = "bf16" if dtype == core.bfloat16 and old not in BYTES else None
            return self._with(dtype, rounded, int_path=False)
        if dtype in (core.int32, core.uint32):
            return self._with(dtype)
        limits = np.iinfo(dtype)  # narrowing wraps; the hardware saturates
        if old == core.bool_:
            return self._with(dtype)
        if e.lo is None or e.hi is None or not limits.min <= e.lo <= e.hi <= limits.max:
            return None
        return self._with(dtype)

    def _convert_float(self, dtype: np.dtype) -> Chain | None:
        if dtype == core.bfloat16:
            return None if self.rounded else self._with(dtype, "bf16")
        if dtype == core.float32:  # exact, if nothing was rounded on the way
            return None if self.rounded else self._with(dtype)
        if self.rounded != "integer" or dtype not in (core.int8, core.uint8, core.int32):
            return None
        if dtype == core.int32 and self.epilogue.zero_point:
            return None
        return self._with(dtype)

    def transposed(self, permutation: tuple[int, ...]) -> Chain | None:
        """Of a product that nothing of its columns was added to: the product w^T a^T.

        None if the permutation does more than exchange rows and columns. Products commute and
        the order of additions is K's, so the bits stay.
        """
        source, e = self.source, self.epilogue
        if not isinstance(source, Contract) or len(source.passes) > 1 or not self.can_end:
            return None
        if e.finish is not None or any(isinstance(v, View) for v in e.vectors):
            return None
        b, m, _, _ = source.sizes
        sizes = [prod(self.shape[:d]) for d in range(len(self.shape) + 1)]
        if b not in sizes or b * m not in sizes:
            return None
        outer, inner = sizes.index(b), sizes.index(b * m)
        dims = range(len(self.shape))
        if permutation != (*dims[:outer], *dims[inner:], *dims[outer:inner]):
            return None
        swapped = Contract(source.w.transpose((0, 2, 1)), source.a.transpose((0, 2, 1)))
        shape = tuple(self.shape[d] for d in permutation)
        return replace(self, source=swapped, shape=shape)

    @property
    def can_end(self) -> bool:
        """Whether STORE can write the value as it is now."""
        return not (self.rounded == "integer" and self.dtype == core.float32)


def _max(a, b):
    """The hardware's maximum of two numbers: -0 is below +0."""
    return b if (b > a or (b == a and not np.signbit(b))) else a


def _min(a, b):
    """The hardware's minimum."""
    return b if (b < a or (b == a and np.signbit(b))) else a
