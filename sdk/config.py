"""What a user sets once: engine, chip and checks, from the environment or from Python.

``TILEWRIGHT_ENGINE`` and ``TILEWRIGHT_CONFIG`` choose the default device, its memory
``TILEWRIGHT_PREALLOCATE`` and ``TILEWRIGHT_MEM_FRACTION``, as JAX's ``XLA_PYTHON_CLIENT_...`` of
the same endings; `settings` has the rest.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from tilewright.isa.config import ChipConfig, ConfigError, parse_config
from tilewright.sim import ENGINES

DEFAULT_ENGINE = "cycle"
DEFAULT_CONFIG = "tw16"
DRAM_BYTES = 1 << 30


@dataclass
class Settings:
    """Switches of the SDK.

    Parameters
    ----------
    check_programs : prove every compiled program legal and race-free, once, when it is compiled.
    debug_nans : check the results of every call for NaN, see `tilewright.debug_nans`.
    """

    check_programs: bool = True
    debug_nans: bool = False


settings = Settings()

#: What `debug_nans` says in this context; None: `settings` decides.
_nans: ContextVar[bool | None] = ContextVar("nans", default=None)


def update(name: str, value: bool) -> None:
    """Change one of `settings` by its name, which may begin with ``jax_``.

    **Raises** ValueError: there is no such setting.
    """
    field, known = name.removeprefix("jax_"), vars(settings)
    if field not in known:
        raise ValueError(f"a setting must be one of {', '.join(known)}, not {name!r}")
    setattr(settings, field, value)


@contextmanager
def debug_nans(check: bool = True) -> Iterator[None]:
    """Check the results of every call within the ``with`` block for NaN.

    A call waits for its results. If one holds NaN, the program is evaluated once more with NumPy,
    and FloatingPointError names the equation that made the first NaN, and its line.
    ``tw.settings.debug_nans = True``, or ``tw.config.update("debug_nans", True)``, does so
    everywhere.
    """
    token = _nans.set(check)
    try:
        yield
    finally:
        _nans.reset(token)


def nans_are_errors() -> bool:
    """Tell whether results are to be checked for NaN now."""
    here = _nans.get()
    return settings.debug_nans if here is None else here

#: Whether jitted functions run as they are written; `disable_jit` sets it.
jit_disabled: ContextVar[bool] = ContextVar("jit_disabled", default=False)


@contextmanager
def disable_jit(disable: bool = True) -> Iterator[None]:
    """Run jitted functions operation by operation within the ``with`` block, for debugging.

    Their Python code then sees concrete arrays, which it may print and branch on.
    """
    token = jit_disabled.set(disable)
    try:
        yield
    finally:
        jit_disabled.reset(token)


def engine_named(name: str, where: str = "engine") -> str:
    """Return an engine's name; `where` says in an error who gave it.

    **Raises** ValueError: there is no such engine.
    """
    if name not in ENGINES:
        raise ValueError(f"{where} must be one of {', '.join(ENGINES)}, not {name!r}")
    return name


def default_engine() -> str:
    """Return ``TILEWRIGHT_ENGINE``, or the cycle-exact engine."""
    return engine_named(os.environ.get("TILEWRIGHT_ENGINE") or DEFAULT_ENGINE, "TILEWRIGHT_ENGINE")


def default_config() -> ChipConfig:
    """Return the chip that ``TILEWRIGHT_CONFIG`` describes, or tw16."""
    try:
        return parse_config(os.environ.get("TILEWRIGHT_CONFIG") or DEFAULT_CONFIG)
    except ConfigError as error:
        raise ConfigError(f"TILEWRIGHT_CONFIG: {error}") from None


def memory_fraction() -> float:
    """Return ``TILEWRIGHT_MEM_FRACTION``: how much of a device's DRAM may be used; by default all.

    **Raises** ValueError: it is not a number above 0 and up to 1.
    """
    text = os.environ.get("TILEWRIGHT_MEM_FRACTION") or "1"
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found <= 1:
        raise ValueError(f"TILEWRIGHT_MEM_FRACTION must be above 0 and at most 1, not {text!r}")
    return found


def preallocated() -> bool:
    """Return ``TILEWRIGHT_PREALLOCATE``: whether a device takes it all at once; by default no.

    **Raises** ValueError: it is neither true nor false (or 1, 0).
    """
    text = os.environ.get("TILEWRIGHT_PREALLOCATE") or "false"
    if text.lower() not in ("true", "1", "false", "0"):
        raise ValueError(f"TILEWRIGHT_PREALLOCATE must be true or false, not {text!r}")
    return text.lower() in ("true", "1")


@contextmanager
def default_matmul_precision(precision: str | None) -> Iterator[None]:
    """Choose how float32 contractions within the ``with`` block are computed; for this thread.

    "default" (also "fastest", "bfloat16") rounds operands to bfloat16; "high" ("bfloat16_3x",
    "tensorfloat32") and "highest" ("float32") split them into two and three bfloat16 parts and take
    3 and 6 passes, whose errors are about 2^-16 and 2^-22 of the sum of the products' magnitudes.
    Sums are float32 always. None leaves it as it is.

    **Raises** ValueError: no such precision.
    """
    from tilewright.compiler.contraction import ALIASES, default_precision, precision_name

    name = precision_name(precision)
    if name not in ALIASES:
        names = ", ".join(repr(n) for group in ALIASES.values() for n in group)
        raise ValueError(f"precision must be one of {names} or None, not {precision!r}")
    token = default_precision.set(name)
    try:
        yield
    finally:
        default_precision.reset(token)
