"""A program: code, data, what goes in and out, and where each instruction comes from; one file.

The file is in the safetensors format: tensors ``code``, ``relocs`` and ``data.N`` (bytes), and as
metadata one JSON manifest with the format's version and the SHA-256 of all content. Equal programs
are equal files. Reading a damaged or foreign file fails with one `ProgramError` that says what,
where, and how to mend it.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as read_tensors
from safetensors.numpy import save as write_tensors
from tilewright.isa.config import INSTR_BYTES, ChipConfig, ConfigError
from tilewright.isa.encoding import Instr, decode_program
from tilewright.isa.program_checks import PartError, check_config, check_parts

FORMAT = "tilewright-program"
VERSION = 1
MAX_DRAM = 1 << 32


class ProgramError(ValueError):
    """A program or program file that cannot be used; says what, where, and how to mend it."""


@dataclass(frozen=True)
class Port:
    """An array that goes into or comes out of a program: dense, row-major, at a DRAM address."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    addr: int
    layout: str = "row-major"


@dataclass(frozen=True)
class Place:
    """A stretch of DRAM that a loader may put elsewhere: what for, byte address, bytes."""

    name: str
    addr: int
    size: int


@dataclass(frozen=True)
class Origin:
    """Where an instruction comes from: kernel, jaxpr equation, the user's source line."""

    kernel: str = ""
    equation: str = ""
    line: str = ""


@dataclass(frozen=True)
class Program:
    """An encoded program for one chip.

    Parameters
    ----------
    config : the chip that it is for.
    code : 64-byte words.
    data : (DRAM byte address, bytes) which are there before the start; they do not overlap.
    inputs, outputs : arrays by name.
    source_map : one `Origin` for each instruction, or empty.
    dram_size : bytes of DRAM that it uses, from address 0.
    meta : whatever else is to be kept, as JSON values.
    places : all of its DRAM, if it can be moved; data and ports begin where places do.
    relocs : what to change then: for each address in the code three little-endian 32-bit words, the
        instruction's number, the bit of its 32-bit field, and the place to whose move it follows.

    Raises
    ------
    ProgramError
        Names the part that does not fit the others.
    """

    config: ChipConfig
    code: bytes
    data: tuple[tuple[int, bytes], ...] = ()
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    source_map: tuple[Origin, ...] = ()
    dram_size: int = 0
    meta: dict[str, Any] = field(default_factory=dict)
    places: tuple[Place, ...] = ()
    relocs: bytes = b""

    def __post_init__(self) -> None:
        if len(self.code) % INSTR_BYTES:
            raise ProgramError(
                f"code must be a multiple of {INSTR_BYTES} bytes, not {len(self.code)}"
            )
        if self.source_map and len(self.source_map) != len(self):
            raise ProgramError(
                f"source_map must be empty or have {len(self)} entries, not {len(self.source_map)}"
            )
        if not 0 <= self.dram_size <= MAX_DRAM:
            raise ProgramError(f"dram_size must be in 0 to {MAX_DRAM}, not {self.dram_size}")
        end = 0
        for addr, content in sorted(self.data):
            if addr < end or addr + len(content) > MAX_DRAM:
                raise ProgramError(f"data at {addr:#x} must follow {end:#x} and end in 32 bits")
            end = addr + len(content)

    def __len__(self) -> int:
        return len(self.code) // INSTR_BYTES

    def instructions(self) -> list[Instr]:
        """The decoded code; raises `IllegalInstruction` at the first word that is none."""
        return decode_program(self.code)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file; it is there whole or not at all."""
        path = Path(path)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(self.to_bytes())
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(name, 0o666 & ~umask)
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise

    def to_bytes(self) -> bytes:
        """The content of its file."""
        tensors = {"code": self.code, **{f"data.{i}": d for i, (_, d) in enumerate(self.data)}}
        tensors |= {"relocs": self.relocs} if self.places else {}
        manifest = {
            "format": VERSION,
            "config": self.config.to_dict(),
            "data": [addr for addr, _ in self.data],
            "inputs": [asdict(p) for p in self.inputs],
            "outputs": [asdict(p) for p in self.outputs],
            "source_map": [[o.kernel, o.equation, o.line] for o in self.source_map],
            "dram_size": self.dram_size,
            "meta": self.meta,
            "places": [asdict(p) for p in self.places],
        }
        manifest["sha256"] = _digest(manifest, tensors)
        arrays = {k: np.frombuffer(v, np.uint8) for k, v in tensors.items()}
        return write_tensors(arrays, {FORMAT: _canonical(manifest)})

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Program:
        """Read a file that `save` wrote; raises `ProgramError` for any other."""
        try:
            content = Path(path).read_bytes()
        except OSError as e:
            raise ProgramError(f"{path}: cannot be read ({e.strerror}); check the path") from e
        return Program.from_bytes(content, str(path))

    @staticmethod
    def from_bytes(content: bytes, where: str = "<bytes>") -> Program:
        """Read the content of a file; `where` is its name in errors."""
        manifest = _manifest(content, where)
        version = manifest.get("format")
        if not isinstance(version, int) or version < 1:
            raise _damaged(where, f"format version {version!r:.20}")
        if version > VERSION:
            raise ProgramError(
                f"{where}: has format version {version}, this Tilewright reads up to {VERSION}; "
                "update Tilewright or compile the program again"
            )
        try:
            tensors = {k: v.tobytes() for k, v in read_tensors(content).items()}
        except (SafetensorError, ValueError, KeyError, TypeError) as e:
            raise _damaged(where, str(e)) from e
        if manifest.pop("sha256", None) != _digest(manifest, tensors):
            raise _damaged(where, "its checksum does not fit")
        try:
            return _build(manifest, tensors)
        except (ProgramError, ConfigError, PartError) as e:
            raise ProgramError(f"{where}: {e}; compile the program again") from e
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise _damaged(where, f"manifest: {e!r:.200}") from e


def _damaged(where: str, why: str) -> ProgramError:
    return ProgramError(
        f"{where}: is damaged ({why}); copy the file again or compile the program again"
    )


def _manifest(content: bytes, where: str) -> dict[str, Any]:
    """The manifest in the header; without a sound header the file is foreign or damaged."""
    size = int.from_bytes(content[:8], "little")
    known = FORMAT.encode() in content[:256]
    try:
        if not 2 <= size <= len(content) - 8:
            raise ValueError("the file is cut short")
        text = json.loads(content[8 : 8 + size])["__metadata__"][FORMAT]
        manifest = json.loads(text)
        if not isinstance(manifest, dict) or _canonical(manifest) != text:
            raise ValueError("manifest is not in canonical form")
        return manifest
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        if known:
            raise _damaged(where, f"header: {e}") from e
        raise ProgramError(f"{where}: is no Tilewright program; compile or assemble one") from e


def _canonical(manifest: dict[str, Any]) -> str:
    return json.dumps(manifest, sort_keys=True)


def _digest(manifest: dict[str, Any], tensors: dict[str, bytes]) -> str:
    """SHA-256 of the manifest (without its digest) and every tensor with its name and length."""
    h = hashlib.sha256()
    for name, content in (("manifest", _canonical(manifest).encode()), *sorted(tensors.items())):
        h.update(f"{name} {len(content)}\n".encode())
        h.update(content)
    return h.hexdigest()


def _port(fields: dict[str, Any]) -> Port:
    return Port(**{**fields, "shape": tuple(fields["shape"])})


def _build(manifest: dict[str, Any], tensors: dict[str, bytes]) -> Program:
    check_config(manifest["config"])
    program = Program(
        ChipConfig(**manifest["config"]),
        tensors["code"],
        tuple((addr, tensors[f"data.{i}"]) for i, addr in enumerate(manifest["data"])),
        tuple(map(_port, manifest["inputs"])),
        tuple(map(_port, manifest["outputs"])),
        tuple(Origin(*o) for o in manifest["source_map"]),
        manifest["dram_size"],
        manifest["meta"],
        tuple(Place(**p) for p in manifest.get("places", [])),
        tensors.get("relocs", b""),
    )
    check_parts(program)
    return program
