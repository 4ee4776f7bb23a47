"""Tilewright: write NumPy; get a checked, cycle-exact instruction stream for an open accelerator.

Names are imported when they are used, so that ``import tilewright`` costs next to nothing and a
program file runs where there is no compiler.
"""

from importlib import import_module
from typing import Any

_EXPORTS = {
    "checkpoint": "custom",
    "custom_jvp": "custom",
    "custom_vjp": "custom",
    "disable_jit": "config",
    "effects_barrier": "debug",
    "eval_shape": "jitted",
    "float0": "autodiff",
    "hessian": "jacobians",
    "jacfwd": "jacobians",
    "jacobian": "jacobians",
    "jacrev": "jacobians",
    "remat": "custom",
    "stop_gradient": "custom",
    "grad": "autodiff",
    "jvp": "autodiff",
    "linear_transpose": "autodiff",
    "linearize": "autodiff",
    "value_and_grad": "autodiff",
    "vjp": "autodiff",
    "vmap": "mapping",
    "Array": "array",
    "ChipFaultError": "runs",
    "Compiled": "compiled",
    "DeletedError": "array",
    "Device": "device",
    "Jitted": "jitted",
    "LoadedProgram": "artifact",
    "Lowered": "compiled",
    "OutOfMemoryError": "memory_pool",
    "Profile": "profiler",
    "block_until_ready": "array",
    "debug_nans": "config",
    "default_device": "device",
    "default_matmul_precision": "config",
    "device_get": "array",
    "device_put": "array",
    "devices": "device",
    "explain": "compile_reasons",
    "jit": "jitted",
    "live_arrays": "array",
    "load": "artifact",
    "log_compiles": "compile_reasons",
    "make_jaxpr": "jitted",
    "profile": "profiler",
    "settings": "config",
}
_RENAMED = {
    "ShapeDtypeStruct": ("compiler.core", "ShapedArray"),
    "TilewrightError": ("compiler.errors", "TilewrightError"),
    "UnsupportedError": ("compiler.errors", "UnsupportedError"),
    "ChipConfig": ("isa.config", "ChipConfig"),
}
_MODULES = ("config", "debug", "lax", "nn", "numpy", "optim", "random", "tree")
__version__ = "0.1.0"
__all__ = sorted([*_EXPORTS, *_RENAMED, *_MODULES])


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name in _EXPORTS:
        module, attribute = _EXPORTS[name], name
    elif name in _RENAMED:
        module, attribute = _RENAMED[name]
    else:
        raise AttributeError(f"tilewright has no {name!r}; it has: {', '.join(__all__)}")
    value = getattr(import_module(f"{__name__}.{module}"), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
