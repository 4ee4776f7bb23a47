"""The chip's geometry: one frozen value; nothing else in the project knows a size.

A preset (`tw4`, `tw8`, `tw16`) or an ad-hoc text such as ``dim=2,spad_kib=4,acc_kib=2`` names one.
Derived sizes are properties, so that they cannot disagree with their source.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

DIMS = (2, 4, 8, 16, 32)
BANKS = 8  # of the scratchpad and of the accumulator
QUEUE_DEPTH = 16  # entries of each unit's queue
SEMAPHORES = 32
SEM_MAX = 255  # a count above it is a fault
REGISTERS = 16
INSTR_BYTES = 64
LINE_INSTRS = 8  # instructions of one fetch line
LINES = 4  # fetch lines in the instruction buffer
IBUS_BYTES = 16  # width of the instruction port
MAX_BURST = 16  # beats of one AXI burst
LOCAL_BITS = 18  # bits of a local address (granule or accumulator row)
ARRAYS = ("bf16", "int8")  # what the systolic array multiplies; bf16 does 8-bit integers, too
XPOSE_BLOCKS = 8  # a transposing LOAD or STORE takes dim rows of up to so many times dim elements
STORE_VECTOR_UNITS = 16  # column blocks whose scale and bias one STORE can hold


class ConfigError(ValueError):
    """A geometry that no chip can have; the message names the field and the legal values."""


@dataclass(frozen=True)
class ChipConfig:
    """Geometry of one chip.

    Parameters
    ----------
    dim : rows and columns of the systolic array; lanes of a local row.
    spad_kib : scratchpad size in KiB, a power of two.
    acc_kib : accumulator size in KiB, a power of two.
    bus_bytes : bytes of one data beat, a power of two, at most `dim`; 0 means min(dim, 16).
    name : what the user called it.
    array : "bf16", or "int8": a smaller array that multiplies 8-bit integers only, with the same
        instructions and timing.

    Raises
    ------
    ConfigError
        Names the field that is not legal.
    """

    dim: int
    spad_kib: int
    acc_kib: int
    bus_bytes: int = 0
    name: str = ""
    array: str = "bf16"

    def __post_init__(self) -> None:
        if self.dim not in DIMS:
            raise ConfigError(f"dim must be one of {', '.join(map(str, DIMS))}, not {self.dim!r}")
        if self.bus_bytes == 0:
            object.__setattr__(self, "bus_bytes", min(self.dim, 16))
        if self.array not in ARRAYS:
            raise ConfigError(f"array must be one of {', '.join(ARRAYS)}, not {self.array!r}")
        for field in ("spad_kib", "acc_kib", "bus_bytes"):
            value = getattr(self, field)
            if not isinstance(value, int) or value < 1 or value & (value - 1):
                raise ConfigError(f"{field} must be a power of two, not {value!r}")
        if not 2 <= self.bus_bytes <= self.dim:
            raise ConfigError(f"bus_bytes must be in 2 to dim ({self.dim}), not {self.bus_bytes}")
        for field, rows, least in (
            ("spad_kib", self.spad_granules, 2 * self.dim * BANKS),
            ("acc_kib", self.acc_rows, self.dim * BANKS),
        ):
            if not least <= rows <= 1 << LOCAL_BITS:
                raise ConfigError(
                    f"{field} must give {least} to {1 << LOCAL_BITS} local rows, "
                    f"not {rows} ({getattr(self, field)} KiB at dim {self.dim})"
                )
        if not self.name:
            object.__setattr__(self, "name", self.geometry)

    @property
    def geometry(self) -> str:
        """The text that `parse_config` reads back to this geometry."""
        return (
            f"dim={self.dim},spad_kib={self.spad_kib},acc_kib={self.acc_kib},"
            f"bus_bytes={self.bus_bytes}" + (f",array={self.array}" if self.array != "bf16" else "")
        )

    @property
    def spad_granules(self) -> int:
        """Scratchpad size in granules of `dim` bytes."""
        return self.spad_kib * 1024 // self.dim

    @property
    def acc_rows(self) -> int:
        """Accumulator size in rows of `dim` 32-bit words."""
        return self.acc_kib * 1024 // (4 * self.dim)

    @property
    def spad_bank(self) -> int:
        """Granules of one scratchpad bank."""
        return self.spad_granules // BANKS

    @property
    def acc_bank(self) -> int:
        """Rows of one accumulator bank."""
        return self.acc_rows // BANKS

    def to_dict(self) -> dict[str, int | str]:
        """The fields, for a manifest."""
        return asdict(self)


PRESETS = {
    "tw4": ChipConfig(dim=4, spad_kib=8, acc_kib=4, name="tw4"),
    "tw8": ChipConfig(dim=8, spad_kib=64, acc_kib=16, name="tw8"),
    "tw16": ChipConfig(dim=16, spad_kib=256, acc_kib=64, name="tw16"),
}


def parse_config(text: str | ChipConfig) -> ChipConfig:
    """Read a preset's name or ``field=value,...``; a `ChipConfig` is given back as it is.

    Raises
    ------
    ConfigError
        Names the unknown preset, field or value, and lists what there is.
    """
    if isinstance(text, ChipConfig):
        return text
    if text in PRESETS:
        return PRESETS[text]
    fields: dict[str, int] = {}
    array = ARRAYS[0]
    for part in text.split(","):
        key, eq, value = part.strip().partition("=")
        if not eq or key not in ("dim", "spad_kib", "acc_kib", "bus_bytes", "array"):
            raise ConfigError(
                f"configuration must be one of {', '.join(PRESETS)} or "
                f"dim=,spad_kib=,acc_kib=[,bus_bytes=][,array=], not {text!r}"
            )
        if key == "array":
            array = value
            continue
        try:
            fields[key] = int(value)
        except ValueError:
            raise ConfigError(f"{key} must be an integer, not {value!r}") from None
    missing = [k for k in ("dim", "spad_kib", "acc_kib") if k not in fields]
    if missing:
        raise ConfigError(f"configuration {text!r} lacks {', '.join(missing)}")
    sizes = (fields["dim"], fields["spad_kib"], fields["acc_kib"], fields.get("bus_bytes", 0))
    return ChipConfig(*sizes, array=array)
