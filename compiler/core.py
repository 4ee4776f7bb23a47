"""The jaxpr: a typed, immutable, printable program of primitive equations.

Grammar (as JAX)::

    jaxpr   ::= { lambda const:aval... ; in:aval... . let eqn... in (atom, ...) }
    eqn     ::= var:aval... = primitive[param=value...] atom...
    atom    ::= var | literal:aval
    aval    ::= dtype[shape]            (`~` before it: weakly typed, as a Python scalar)

A jaxpr is data; a pass is a function from jaxpr to jaxpr that calls :func:`check_jaxpr` before and
after. :func:`eval_jaxpr` runs one with NumPy, bit for bit as the chip does: every pass's oracle.
"""

import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
from tilewright.compiler.errors import DtypeError, JaxprError, OperandError
from tilewright.compiler.source import UNKNOWN, Source

float32 = np.dtype(np.float32)
bfloat16 = np.dtype(ml_dtypes.bfloat16)
int8 = np.dtype(np.int8)
uint8 = np.dtype(np.uint8)
int32 = np.dtype(np.int32)
uint32 = np.dtype(np.uint32)
bool_ = np.dtype(np.bool_)

SHORT_NAMES = {
    float32: "f32",
    bfloat16: "bf16",
    int8: "i8",
    uint8: "u8",
    int32: "i32",
    uint32: "u32",
    bool_: "bool",
}
DTYPES = tuple(SHORT_NAMES)
FLOATS = (float32, bfloat16)
INTS = (int8, uint8, int32, uint32)


@dataclass(frozen=True)
class ShapedArray:
    """An abstract value: what is known of an array while tracing."""

    shape: tuple[int, ...]
    dtype: np.dtype
    weak_type: bool = False

    def __post_init__(self):
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "dtype", np.dtype(self.dtype))
        if self.dtype not in SHORT_NAMES:
            names = ", ".join(str(d) for d in DTYPES)
            raise DtypeError(f"dtype must be one of {names}, not {self.dtype}")
        if any(n < 0 for n in self.shape):
            raise OperandError(f"a dimension must be at least 0, not shape {self.shape}")

    @property
    def ndim(self):
        return len(self.shape)

    @property
    def size(self):
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self):
        return self.size * self.dtype.itemsize

    def update(self, **changes):
        """Return this aval with some fields replaced."""
        fields = {"shape": self.shape, "dtype": self.dtype, "weak_type": self.weak_type}
        return ShapedArray(**{**fields, **changes})

    def __str__(self):
        weak = "~" if self.weak_type else ""
        return f"{weak}{SHORT_NAMES[self.dtype]}[{','.join(map(str, self.shape))}]"


class Var:
    """A variable of a jaxpr; equal only to itself."""

    __slots__ = ("aval",)

    def __init__(self, aval):
        self.aval = aval

    def __repr__(self):
        return f"Var({self.aval})"


@dataclass(frozen=True, eq=False)
class Literal:
    """A scalar constant written into the equation that uses it."""

    value: np.ndarray  # rank 0, read-only
    aval: ShapedArray

    def __post_init__(self):
        value = np.array(self.value, dtype=self.aval.dtype)
        value.setflags(write=False)
        if value.ndim or self.aval.shape:
            raise JaxprError(f"a literal must be a scalar, not {self.aval}")
        object.__setattr__(self, "value", value)

    @property
    def key(self):
        """What two literals must share to be the same: the bits and the type."""
        return (self.value.tobytes(), self.aval)

    def __str__(self):
        return f"{self.value.item()}:{self.aval}"


class Params(dict):
    """An equation's parameters: a dictionary that is hashable and refuses changes."""

    def _refuse(self, *_args, **_kwargs):
        raise TypeError("an equation's params are immutable")

    __setitem__ = __delitem__ = update = pop = popitem = clear = setdefault = _refuse

    def __hash__(self):
        return hash(tuple(sorted(self.items())))

    def __reduce__(self):
        return (Params, (dict(self),))


class Primitive:
    """One operation of the IR; its rules are registered beside it, by kind.

    Every primitive has two rules. ``impl(*arrays, **params)`` computes with NumPy, bit for bit as
    the chip. ``abstract(*avals, **params)`` gives the result's aval, or raises
    OperandError. A pass that needs another kind (``jvp``, ``batch``, ...) registers it with
    :meth:`rule` and finds it in `rules`; what those of the transformations take and return stands
    in `compiler.rules`.

    Parameters
    ----------
    name : str
    uses_dim : bool
        The result depends on the array's `dim` (the order of float additions): impl takes ``dim=``.
    multiple_results : bool
        impl and abstract return lists, one entry for each result.
    """

    def __init__(self, name, *, uses_dim=False, multiple_results=False):
        self.name = name
        self.uses_dim = uses_dim
        self.multiple_results = multiple_results
        self.rules: dict[str, Callable] = {}

    def rule(self, kind):
        """Return a decorator that registers a function as this primitive's rule of a kind."""

        def register(function):
            if kind in self.rules:
                raise ValueError(f"{self.name} has a rule {kind!r} already")
            self.rules[kind] = function
            return function

        return register

    def impl(self, *args, dim=16, **params):
        """Compute with NumPy; `dim` is the side of the systolic array."""
        if self.uses_dim:
            params = {**params, "dim": dim}
        return self.rules["impl"](*args, **params)

    def abstract(self, *avals, **params):
        """Return the aval of the result, or the list of the results' avals."""
        return self.rules["abstract"](*avals, **params)

    def out_avals(self, *avals, **params):
        """Return the avals of all results, as a tuple."""
        found = self.abstract(*avals, **params)
        return tuple(found) if self.multiple_results else (found,)

    def __repr__(self):
        return self.name


@dataclass(frozen=True, eq=False)
class Eqn:
    """One equation: ``outputs = primitive[params] inputs``, and the user's line it comes from."""

    primitive: Primitive
    inputs: tuple[Var | Literal, ...]
    outputs: tuple[Var, ...]
    params: Params = field(default_factory=Params)
    source: Source = UNKNOWN

    def __post_init__(self):
        object.__setattr__(self, "inputs", tuple(self.inputs))
        object.__setattr__(self, "outputs", tuple(self.outputs))
        object.__setattr__(self, "params", Params(self.params))


@dataclass(frozen=True, eq=False)
class Jaxpr:
    """A closed program: `consts[i]` is the value of `constvars[i]`.

    `memo` is for what is made of a program once: its derivative, its compiled form.
    """

    invars: tuple[Var, ...]
    constvars: tuple[Var, ...]
    consts: tuple[Any, ...]
    eqns: tuple[Eqn, ...]
    outvars: tuple[Var | Literal, ...]
    memo: dict = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self):
        for name in ("invars", "constvars", "consts", "eqns", "outvars"):
            object.__setattr__(self, name, tuple(getattr(self, name)))

    @property
    def in_avals(self):
        return tuple(v.aval for v in self.invars)

    @property
    def out_avals(self):
        return tuple(v.aval for v in self.outvars)

    @property
    def key(self):
        """What two programs must share to be the same: all but names and source lines."""
        if "key" not in self.memo:
            number = {id(v): n for n, v in enumerate((*self.constvars, *self.invars))}

            def place(atom):
                return atom.key if isinstance(atom, Literal) else number[id(atom)]

            eqns = []
            for e in self.eqns:
                eqns.append((e.primitive, tuple(map(place, e.inputs)), structure(e.params)))
                number.update({id(v): len(number) + n for n, v in enumerate(e.outputs)})
            values = tuple(np.asarray(c).tobytes() for c in self.consts)
            avals = tuple(v.aval for v in self.constvars)
            self.memo["key"] = (values, avals, self.in_avals, tuple(eqns),
                                tuple(map(place, self.outvars)))  # fmt: skip
        return self.memo["key"]

    def __str__(self):
        from tilewright.compiler.printer import jaxpr_text  # the printer needs these classes

        return jaxpr_text(self)


def structure(value):
    """Parameters with the programs in them replaced by their keys; `call` changes no values."""
    if isinstance(value, Jaxpr):
        return value.key
    if isinstance(value, tuple):
        return tuple(map(structure, value))
    if isinstance(value, dict):
        return tuple((k, structure(v)) for k, v in sorted(value.items()) if k != "call")
    return value


def check_jaxpr(jaxpr):
    """Check that a jaxpr is well formed and well typed; return it.

    **Raises** JaxprError: a variable is used before it is defined or is defined twice, a constant
    does not have its variable's type, or an equation's outputs are not what its primitive's
    abstract rule says.
    """
    defined = set()

    def define(var):
        if not isinstance(var, Var):
            raise JaxprError(f"only a Var can be defined, not {var!r}")
        if id(var) in defined:
            raise JaxprError(f"{var!r} is defined twice in\n{jaxpr}")
        defined.add(id(var))

    def use(atom, where):
        if isinstance(atom, Var) and id(atom) not in defined:
            raise JaxprError(f"{atom!r} is used by {where} before it is defined")
        if not isinstance(atom, Var | Literal):
            raise JaxprError(f"{where} must use Vars and Literals, not {atom!r}")

    if len(jaxpr.constvars) != len(jaxpr.consts):
        raise JaxprError(f"{len(jaxpr.constvars)} constvars but {len(jaxpr.consts)} consts")
    for var in (*jaxpr.constvars, *jaxpr.invars):
        define(var)
    for var, const in zip(jaxpr.constvars, jaxpr.consts, strict=True):
        if tuple(const.shape) != var.aval.shape or np.dtype(const.dtype) != var.aval.dtype:
            found = f"{const.dtype}{tuple(const.shape)}"
            raise JaxprError(f"a constant must be {var.aval}, not {found}")
    for eqn in jaxpr.eqns:
        for atom in eqn.inputs:
            use(atom, eqn.primitive.name)
        avals = eqn.primitive.out_avals(*(a.aval for a in eqn.inputs), **eqn.params)
        if tuple(v.aval for v in eqn.outputs) != avals:
            wanted, found = (", ".join(map(str, t)) for t in (avals, [v.aval for v in eqn.outputs]))
            raise JaxprError(f"{eqn.primitive.name} must give {wanted}, not {found} ({eqn.source})")
        for var in eqn.outputs:
            define(var)
    for atom in jaxpr.outvars:
        use(atom, "the result")
    return jaxpr


class _Watching(threading.local):
    see: Callable | None = None


_watching = _Watching()


@contextmanager
def watching(see):
    """Call ``see(eqn, inputs, outputs)`` after each equation that is evaluated in the block.

    Also after those of the programs within equations, which come first. Values are NumPy arrays.
    """
    previous, _watching.see = _watching.see, see
    try:
        yield
    finally:
        _watching.see = previous


def eval_jaxpr(jaxpr, args, *, dim=16):
    """Run a jaxpr with NumPy and return its results as a list of arrays.

    Parameters
    ----------
    args : sequence of arrays
        One for each invar, of exactly its shape and dtype.
    dim : int
        Side of the systolic array: it fixes the order of additions of a contraction.
    """
    if len(args) != len(jaxpr.invars):
        raise OperandError(f"the jaxpr takes {len(jaxpr.invars)} arguments, not {len(args)}")
    values = {}
    for var, arg in zip(jaxpr.invars, args, strict=True):
        array = np.asarray(arg)
        if array.shape != var.aval.shape or array.dtype != var.aval.dtype:
            raise OperandError(f"argument must be {var.aval}, not {array.dtype}{array.shape}")
        values[id(var)] = array
    for var, const in zip(jaxpr.constvars, jaxpr.consts, strict=True):
        values[id(var)] = np.asarray(const)

    def read(atom):
        return atom.value if isinstance(atom, Literal) else values[id(atom)]

    for eqn in jaxpr.eqns:
        inputs = list(map(read, eqn.inputs))
        result = eqn.primitive.impl(*inputs, dim=dim, **eqn.params)
        results = list(map(np.asarray, result if eqn.primitive.multiple_results else [result]))
        if _watching.see is not None:
            _watching.see(eqn, inputs, results)
        for out, value in zip(eqn.outputs, results, strict=True):
            if value.shape != out.aval.shape or value.dtype != out.aval.dtype:
                raise JaxprError(
                    f"impl of {eqn.primitive.name} gave {value.dtype}{value.shape}, not {out.aval}"
                )
            values[id(out)] = value
    return [read(atom) for atom in jaxpr.outvars]
