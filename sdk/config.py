"""What a user sets once: engine, chip and checks, from the environment or from Python.

``TILEWRIGHT_ENGINE`` and ``TILEWRIGHT_CONFIG`` choose the default device; `settings` has the rest.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
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
    """

    check_programs: bool = True


settings = Settings()


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


@contextmanager
def default_matmul_precision(precision: str | None) -> Iterator[None]:
    """Choose how float32 matrix products within the ``with`` block are computed.

    Only one way is built: operands rounded to bfloat16, float32 sums ("default", "bfloat16").

    **Raises** UnsupportedError: "high", "highest" and their aliases.
    """
    if precision not in (None, "default", "fastest", "bfloat16"):
        from tilewright.compiler.errors import UnsupportedError

        raise UnsupportedError(
            f"precision {precision!r} is not built yet; it must be 'default' (bfloat16 products, "
            "float32 sums)"
        )
    yield
