"""Modules of `tilewright` with one text replaced: a proof must fail on its mutant.

The mutant is a module of its own; what else imports the original keeps the original.
"""

import importlib.util
import linecache
import types


def text_of(name: str) -> str:
    """The source text of module `name`."""
    return importlib.util.find_spec(name).loader.get_source(name)


def mutant(name: str, *changes: tuple[str, str]) -> types.ModuleType:
    """Return module `name` with each (old, new) applied to its source text.

    **Raises** ValueError if an `old` does not occur exactly once: the mutant has lost its place.
    """
    spec = importlib.util.find_spec(name)
    text = spec.loader.get_source(name)
    for old, new in changes:
        if text.count(old) != 1:
            raise ValueError(f"{old!r} must occur once in {name}, not {text.count(old)} times")
        text = text.replace(old, new)
    module = types.ModuleType(f"{name}_mutant")
    module.__file__ = f"<mutant of {spec.origin}>"
    # Amaranth reads the source of each statement's caller, to warn about unused values
    linecache.cache[module.__file__] = (len(text), None, text.splitlines(True), module.__file__)
    exec(compile(text, module.__file__, "exec"), module.__dict__)
    return module
