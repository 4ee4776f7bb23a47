"""`tw.jit`: trace a function once per kind of arguments, compile it, run it on the chip.

The kind is the structure of the arguments, the aval of every leaf, the static values and the chip.
While another function is recorded, a jitted function is the function itself: its equations are
recorded there. Within a derivative or `vmap` of concrete values it is one equation, `jit`.
"""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from tilewright.array import Array, put_leaf
from tilewright.compile_reasons import compiling
from tilewright.compiled import Compiled, Lowered, common_device, lower_jaxpr
from tilewright.compiler import trace, tree
from tilewright.compiler.contraction import default_precision
from tilewright.compiler.core import Jaxpr, ShapedArray
from tilewright.compiler.errors import DtypeError
from tilewright.compiler.source import user_source
from tilewright.config import jit_disabled


def _indices(what: str, value: int | Iterable[int]) -> tuple[int, ...]:
    try:
        return (operator.index(value),)  # type: ignore[arg-type]
    except TypeError:
        pass
    try:
        return tuple(operator.index(v) for v in value)  # type: ignore[union-attr]
    except TypeError:
        raise TypeError(f"{what} must be an int or a sequence of ints, not {value!r}") from None


class _Call(NamedTuple):
    """A call: what is the same for all calls that run one program is its key."""

    leaves: list[Any]
    statics: Any
    device: Any
    key: Any


class Jitted:
    """A function that runs on the chip; made by `jit`."""

    def __init__(
        self,
        fun: Callable[..., Any],
        static_argnums: int | Sequence[int] = (),
        static_argnames: str | Sequence[str] = (),
        donate_argnums: int | Sequence[int] = (),
    ):
        if not callable(fun):
            raise TypeError(f"jit needs a function, not {fun!r}")
        self.fun = fun
        functools.update_wrapper(self, fun, updated=())  # not the attributes of another Jitted
        self.name = getattr(fun, "__name__", type(fun).__name__)
        names = (static_argnames,) if isinstance(static_argnames, str) else tuple(static_argnames)
        self._signature = inspect.signature(fun)
        parameters = self._signature.parameters
        places = [
            p.name
            for p in parameters.values()
            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
        open_ended = any(p.kind is p.VAR_POSITIONAL for p in parameters.values())
        open_named = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        for name in names:
            if name not in parameters and not open_named:
                raise ValueError(
                    f"static_argnames must name arguments of {self.name}, not {name!r}"
                )

        def normal(what: str, value: int | Sequence[int]) -> set[int]:
            found = set()
            for i in _indices(what, value):
                if not open_ended and not -len(places) <= i < len(places):
                    raise ValueError(
                        f"{what} must be in [{-len(places)}, {len(places)}) for {self.name}, "
                        f"not {i}"
                    )
                found.add(i % len(places) if i < 0 else i)
            return found

        static = normal("static_argnums", static_argnums)
        self._static_nums = frozenset(static | {places.index(n) for n in names if n in places})
        self._static_names = frozenset({*names, *(places[i] for i in static if i < len(places))})
        self._donated = frozenset(normal("donate_argnums", donate_argnums))
        if self._donated & self._static_nums:
            raise ValueError(f"a static argument of {self.name} cannot be donated")
        self._cache: dict[Any, Compiled] = {}
        self._traced: dict[Any, Any] = {}  # (program, constants, structure of its result)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __repr__(self) -> str:
        return f"<jitted {self.name}>"

    def _split(self, args: Any, kwargs: Any) -> tuple[Any, Any, Any]:
        """(dynamic args, dynamic kwargs, (place or name, type, value) of the static ones)."""
        nums, names = self._static_nums, self._static_names
        if not nums and not names:
            return args, kwargs, ()
        dynamic = tuple(a for i, a in enumerate(args) if i not in nums)
        named = {k: v for k, v in kwargs.items() if k not in names}
        statics = [(i, type(a), a) for i, a in enumerate(args) if i in nums]
        statics += [(k, type(v), v) for k, v in sorted(kwargs.items()) if k in names]
        for which, kind, value in statics:
            if isinstance(value, trace.Tracer | Array):
                found = "an array"
                if isinstance(value, trace.Tracer):
                    found = f"{value!r}, which a transformation around the call traces"
                raise ValueError(
                    f"static argument {which!r} of {self.name} must be a Python value, not "
                    f"{found} (at {user_source()})"
                )
            try:
                hash(value)
            except TypeError:
                raise ValueError(
                    f"static argument {which!r} of {self.name} must be hashable, not "
                    f"{kind.__name__} (at {user_source()})"
                ) from None
        return dynamic, named, tuple(statics)

    @staticmethod
    def _key(statics: Any) -> Any:
        """Equal for equal static values; floats by their bits (-0.0 is not 0.0, NaN is NaN)."""
        return tuple((w, kind, v.hex() if kind is float else v) for w, kind, v in statics)

    def _avals(self, args: Any, kwargs: Any) -> tuple[list[Any], Any, tuple[ShapedArray, ...]]:
        """(leaves, structure, avals) of the dynamic arguments."""
        leaves, in_tree = tree.flatten((args, kwargs))
        try:
            return leaves, in_tree, tuple(map(_aval, leaves))
        except DtypeError:
            pass
        for path, leaf in tree.flatten_with_path((args, kwargs))[0]:
            try:
                _aval(leaf)
            except DtypeError as error:
                where = ("args" if path[0] == "[0]" else "kwargs") + tree.keystr(path[1:])
                raise DtypeError(
                    f"{self.name}: {where}: {error} (at {user_source()}); "
                    "an argument that is no array must be static"
                ) from None
        raise AssertionError("one leaf has no aval")

    def _bound(self, args: Any, kwargs: Any) -> None:
        """Check that the function takes these arguments."""
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as error:
            shown = f"{self.name}{self._signature}"
            raise TypeError(f"{shown}: {error} (at {user_source()})") from None

    def _merged(self, statics: Any) -> Callable[..., Any]:
        """The function of the dynamic arguments alone."""
        if not statics:
            return self.fun
        by_place = {w: v for w, _, v in statics if isinstance(w, int)}
        by_name = {w: v for w, _, v in statics if isinstance(w, str)}

        @functools.wraps(self.fun)
        def merged(*args: Any, **kwargs: Any) -> Any:
            rest = iter(args)
            count = len(args) + len(by_place)
            full = [by_place[i] if i in by_place else next(rest) for i in range(count)]
            return self.fun(*full, **kwargs, **by_name)

        dynamic = [p for i, p in enumerate(self._signature.parameters.values())
                   if i not in by_place and p.name not in by_name]  # fmt: skip
        merged.__signature__ = self._signature.replace(parameters=dynamic)  # type: ignore[attr-defined]
        return merged

    def _lower(self, avals: Any, in_tree: Any, statics: Any, config: Any) -> Lowered:
        jaxpr, out_tree = trace.trace_to_jaxpr(self._merged(statics), avals, in_tree)
        donated = self._donated_leaves(in_tree, statics)
        return lower_jaxpr(jaxpr, self.name, config, in_tree, out_tree, user_source(), donated)

    def _donated_leaves(self, in_tree: Any, statics: Any) -> list[int]:
        """Numbers of the leaves of donated arguments."""
        args, _ = tree.unflatten(in_tree, range(in_tree.num_leaves))
        places = [i for i in range(len(args) + len(statics)) if i not in self._static_nums]
        return [n for i, arg in zip(places, args, strict=False) if i in self._donated
                for n in tree.leaves(arg)]  # fmt: skip

    def traced(self, args: Any, kwargs: Any) -> tuple[Jaxpr, tree.PyTreeDef]:
        """Return the program for these arguments, and the structure of its result."""
        self._bound(args, kwargs)
        dynamic, named, statics = self._split(args, kwargs)
        _, in_tree, avals = self._avals(dynamic, named)
        return trace.trace_to_jaxpr(self._merged(statics), avals, in_tree)

    def lower(self, *args: Any, **kwargs: Any) -> Lowered:
        """Trace for these arguments (arrays or ShapeDtypeStructs), without running anything."""
        self._bound(args, kwargs)
        dynamic, named, statics = self._split(args, kwargs)
        leaves, in_tree, avals = self._avals(dynamic, named)
        device = common_device(self.name, leaves)
        return self._lower(avals, in_tree, statics, device.config)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if jit_disabled.get():
            return self.fun(*args, **kwargs)
        if trace.is_recording():
            self._split(args, kwargs)  # checks the static ones
            return self.fun(*args, **kwargs)
        if trace.current_trace() is not None:
            return self._within(args, kwargs)
        call = self.call_of(args, kwargs)
        compiled = self._cache.get(call.key)
        source = user_source()
        if compiled is None:
            self._bound(args, kwargs)
            compiling(self, call.key, source)
            in_tree, avals, _, config, _ = call.key
            compiled = self._lower(avals, in_tree, call.statics, config).compile()
            self._cache[call.key] = compiled
        label = str(source)
        arrays = [put_leaf(leaf, call.device, label=label) for leaf in call.leaves]
        results = compiled.execute(arrays, call.device, source)
        for i in self._donated:
            if i < len(args):
                for leaf in tree.leaves(args[i]):
                    if isinstance(leaf, Array):
                        leaf.delete()
        return tree.unflatten(compiled.lowered.out_tree, results)

    def call_of(self, args: Any, kwargs: Any) -> _Call:
        """The kind of a call and its dynamic leaves."""
        dynamic, named, statics = self._split(args, kwargs)
        leaves, in_tree, avals = self._avals(dynamic, named)
        device = common_device(self.name, leaves)
        key = (in_tree, avals, self._key(statics), device.config, default_precision.get())
        return _Call(leaves, statics, device, key)

    def _within(self, args: Any, kwargs: Any) -> Any:
        """The call within a transformation of concrete values: one equation, traced once."""
        from tilewright.compiler.control import jit_p  # late: most programs only use jit

        program, operands, out_tree = self.program_of(args, kwargs)
        outs = trace.bind(jit_p, *operands, jaxpr=program, name=self.name)
        return tree.unflatten(out_tree, outs)

    def program_of(self, args: Any, kwargs: Any) -> tuple[Any, list[Any], Any]:
        """The function as a program that closes over nothing, its operands, its results' structure.

        It is traced once for each kind of arguments, if it closes over no tracers.
        """
        from tilewright.compiler.control import closed

        dynamic, named, statics = self._split(args, kwargs)
        leaves, in_tree, avals = self._avals(dynamic, named)
        key = (in_tree, avals, self._key(statics), default_precision.get())
        found = self._traced.get(key)
        if found is None:
            self._bound(args, kwargs)
            fun, out_tree = self._merged(statics), None

            def flat(*values: Any) -> list[Any]:
                nonlocal out_tree
                some, others = tree.unflatten(in_tree, values)
                outs, out_tree = trace.result_leaves(fun, fun(*some, **others))
                return outs

            found = (*closed(flat, avals, (fun, in_tree)), out_tree)
            if not any(isinstance(c, trace.Tracer) for c in found[1]):
                self._traced[key] = found
        program, consts, out_tree = found
        return program, [*consts, *map(trace.lift, leaves)], out_tree

    def clear_cache(self) -> None:
        """Forget all compiled programs."""
        self._cache.clear()
        self._traced.clear()

    def cache_size(self) -> int:
        """Return how many kinds of arguments were compiled."""
        return len(self._cache)


def _aval(leaf: Any) -> ShapedArray:
    if isinstance(leaf, Array):
        return leaf.aval
    if isinstance(leaf, ShapedArray):
        return leaf
    if isinstance(leaf, trace.Tracer) and trace.current_trace() is None:
        raise trace.leaked(leaf, "jit")
    return trace.aval_of(leaf)


def jit(
    fun: Callable[..., Any] | None = None,
    *,
    static_argnums: int | Sequence[int] = (),
    static_argnames: str | Sequence[str] = (),
    donate_argnums: int | Sequence[int] = (),
) -> Any:
    """Compile a function of pytrees of arrays for the chip; also a decorator.

    Parameters
    ----------
    fun : written with `tilewright.numpy` and operators; it is traced, so it must be pure.
    static_argnums, static_argnames : arguments that are Python values while tracing; each new value
        compiles anew. One given by position may also be passed by name, and the reverse.
    donate_argnums : arguments whose arrays are deleted by the call; results of their shapes and
        dtypes take their memory, where the kernels allow it (`memory_analysis` says how much).

    Returns
    -------
    Jitted
        Called as `fun`, it returns Arrays at once; `lower(...)` shows what would run.
    """
    options: dict[str, Any] = {
        "static_argnums": static_argnums,
        "static_argnames": static_argnames,
        "donate_argnums": donate_argnums,
    }
    if fun is None:
        return lambda f: Jitted(f, **options)
    return Jitted(fun, **options)


def make_jaxpr(
    fun: Callable[..., Any], static_argnums: int | Sequence[int] = (), return_shape: bool = False
) -> Callable[..., Any]:
    """Return a function of example arguments that returns the jaxpr of `fun`.

    Parameters
    ----------
    static_argnums : arguments that are Python values while tracing.
    return_shape : return the jaxpr and the results' shapes and dtypes, as ShapeDtypeStructs.
    """
    jitted = fun if isinstance(fun, Jitted) else Jitted(fun, static_argnums)

    @functools.wraps(fun)
    def traced(*args: Any, **kwargs: Any) -> Any:
        jaxpr, out_tree = jitted.traced(args, kwargs)
        return (jaxpr, tree.unflatten(out_tree, jaxpr.out_avals)) if return_shape else jaxpr

    return traced


def eval_shape(fun: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Return the shapes and dtypes of a function's result, as ShapeDtypeStructs; nothing runs.

    Arguments are pytrees of arrays, numbers or ShapeDtypeStructs.
    """
    leaves, in_tree = tree.flatten((args, kwargs))
    jaxpr, out_tree = trace.trace_to_jaxpr(fun, list(map(_aval, leaves)), in_tree)
    return tree.unflatten(out_tree, jaxpr.out_avals)
