"""NumPy's operators and methods, for every class that looks like an array (tracers, device arrays).

A subclass gives `shape` and `dtype`; all that computes goes to `compiler.ops`. Its own `__slots__`
stay empty, so that a subclass decides about its storage.
"""

from math import prod

from tilewright.compiler.errors import MissingError, UnsupportedError
from tilewright.compiler.source import user_source


def _ops():
    from tilewright.compiler import ops  # late: ops needs the tracer, which needs this class

    return ops


def _binary(name):
    def method(self, other):
        ops = _ops()
        return getattr(ops, name)(self, other) if ops.is_operand(other) else NotImplemented

    return method


def _reflected(name):
    def method(self, other):
        ops = _ops()
        return getattr(ops, name)(other, self) if ops.is_operand(other) else NotImplemented

    return method


class ArrayOperators:
    """Mixin: arithmetic, comparisons, indexing, and the shape methods of an ndarray."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

    __add__, __radd__ = _binary("add"), _reflected("add")
    __sub__, __rsub__ = _binary("subtract"), _reflected("subtract")
    __mul__, __rmul__ = _binary("multiply"), _reflected("multiply")
    __truediv__, __rtruediv__ = _binary("divide"), _reflected("divide")
    __and__, __rand__ = _binary("bitwise_and"), _reflected("bitwise_and")
    __or__, __ror__ = _binary("bitwise_or"), _reflected("bitwise_or")
    __xor__, __rxor__ = _binary("bitwise_xor"), _reflected("bitwise_xor")
    __lshift__, __rlshift__ = _binary("left_shift"), _reflected("left_shift")
    __rshift__, __rrshift__ = _binary("right_shift"), _reflected("right_shift")
    __pow__, __rpow__ = _binary("power"), _reflected("power")
    __floordiv__, __rfloordiv__ = _binary("floor_divide"), _reflected("floor_divide")
    __mod__, __rmod__ = _binary("remainder"), _reflected("remainder")
    __divmod__, __rdivmod__ = _binary("divmod"), _reflected("divmod")
    __matmul__, __rmatmul__ = _binary("matmul"), _reflected("matmul")
    __eq__, __ne__ = _binary("equal"), _binary("not_equal")
    __lt__, __le__ = _binary("less"), _binary("less_equal")
    __gt__, __ge__ = _binary("greater"), _binary("greater_equal")

    def __neg__(self):
        return _ops().negative(self)

    def __abs__(self):
        return _ops().abs(self)

    def __invert__(self):
        return _ops().invert(self)

    def __pos__(self):
        return self

    def __getitem__(self, index):
        return _ops().getitem(self, index)

    def __setitem__(self, index, value):
        raise UnsupportedError(
            f"arrays of Tilewright are immutable: x[{index!r}] = ... (at {user_source()}); "
            "use x.at[...].set(...), which gives a new array"
        )

    @property
    def at(self):
        """``x.at[index].set(y)``, ``.add(y)``, ...: a new array with these elements replaced."""
        from tilewright.compiler.updating import At  # late, as `ops`

        return At(self)

    def __len__(self):
        if not self.shape:
            raise TypeError("len() of an array of rank 0")
        return self.shape[0]

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    @property
    def ndim(self):
        return len(self.shape)

    @property
    def size(self):
        return prod(self.shape)

    @property
    def nbytes(self):
        return self.size * self.dtype.itemsize

    @property
    def itemsize(self):
        return self.dtype.itemsize

    @property
    def T(self):
        return _ops().transpose(self)

    @property
    def mT(self):
        return _ops().matrix_transpose(self)

    def transpose(self, *axes):
        axes = axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes
        return _ops().transpose(self, axes or None)

    def swapaxes(self, axis1, axis2):
        return _ops().swapaxes(self, axis1, axis2)

    def reshape(self, *shape, order="C"):
        shape = shape[0] if len(shape) == 1 else shape
        return _ops().reshape(self, shape, order=order)

    def ravel(self, order="C"):
        return _ops().ravel(self, order=order)

    def flatten(self, order="C"):
        return _ops().ravel(self, order=order)

    def squeeze(self, axis=None):
        return _ops().squeeze(self, axis)

    def astype(self, dtype):
        return _ops().astype(self, dtype)

    def dot(self, other, *, precision=None, preferred_element_type=None):
        return _ops().dot(
            self, other, precision=precision, preferred_element_type=preferred_element_type
        )

    def clip(self, min=None, max=None):
        return _ops().clip(self, min, max)

    def repeat(self, repeats, axis=None):
        return _ops().repeat(self, repeats, axis)

    def diagonal(self, offset=0, axis1=0, axis2=1):
        return _ops().diagonal(self, offset, axis1, axis2)

    def round(self, decimals=0):
        return _ops().round(self, decimals)

    def sum(self, axis=None, dtype=None, *, keepdims=False):
        return _ops().sum(self, axis, dtype, keepdims=keepdims)

    def prod(self, axis=None, dtype=None, *, keepdims=False):
        return _ops().prod(self, axis, dtype, keepdims=keepdims)

    def max(self, axis=None, *, keepdims=False):
        return _ops().max(self, axis, keepdims=keepdims)

    def min(self, axis=None, *, keepdims=False):
        return _ops().min(self, axis, keepdims=keepdims)

    def mean(self, axis=None, dtype=None, *, keepdims=False):
        return _ops().mean(self, axis, dtype, keepdims=keepdims)

    def var(self, axis=None, dtype=None, *, ddof=0, keepdims=False):
        return _ops().var(self, axis, dtype, ddof=ddof, keepdims=keepdims)

    def std(self, axis=None, dtype=None, *, ddof=0, keepdims=False):
        return _ops().std(self, axis, dtype, ddof=ddof, keepdims=keepdims)

    def any(self, axis=None, *, keepdims=False):
        return _ops().any(self, axis, keepdims=keepdims)

    def all(self, axis=None, *, keepdims=False):
        return _ops().all(self, axis, keepdims=keepdims)

    def argmax(self, axis=None, *, keepdims=False):
        return _ops().argmax(self, axis, keepdims=keepdims)

    def argmin(self, axis=None, *, keepdims=False):
        return _ops().argmin(self, axis, keepdims=keepdims)

    def cumsum(self, axis=None, dtype=None):
        return _ops().cumsum(self, axis, dtype)

    def cumprod(self, axis=None, dtype=None):
        return _ops().cumprod(self, axis, dtype)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)  # a protocol that Python or NumPy probes for
        methods = sorted(n for n in dir(ArrayOperators) if not n.startswith("_"))
        raise MissingError(
            f"an array of Tilewright has no .{name} (at {user_source()}); "
            f"it has: {', '.join(methods)}"
        )
