"""Geometries: derived sizes, texts, and refusals by name."""

import pytest
from tilewright.isa.config import DIMS, PRESETS, ChipConfig, ConfigError, parse_config


def test_tw16_sizes():
    c = PRESETS["tw16"]
    assert (c.spad_granules, c.spad_bank, c.acc_rows, c.acc_bank) == (16384, 2048, 1024, 128)
    assert c.bus_bytes == 16


@pytest.mark.parametrize("dim", DIMS)
def test_every_dim_has_a_smallest_geometry_whose_text_reads_back(dim):
    spad, acc = max(1, 16 * dim * dim // 1024), max(1, 32 * dim * dim // 1024)
    config = ChipConfig(dim, spad, acc)
    assert parse_config(config.geometry) == config
    assert config.bus_bytes == min(dim, 16)


@pytest.mark.parametrize(
    "text, message",
    [
        ("tw5", "configuration must be one of tw4, tw8, tw16 or dim="),
        ("dim=3,spad_kib=4,acc_kib=2", "dim must be one of 2, 4, 8, 16, 32, not 3"),
        ("dim=4,spad_kib=3,acc_kib=2", "spad_kib must be a power of two, not 3"),
        ("dim=32,spad_kib=8,acc_kib=32", "spad_kib must give 512 to 262144 local rows, not 256"),
        ("dim=16,spad_kib=64,acc_kib=4", "acc_kib must give 128 to 262144 local rows, not 64"),
        ("dim=4,spad_kib=8,acc_kib=4,bus_bytes=8", r"bus_bytes must be in 2 to dim \(4\), not 8"),
        ("dim=4,spad_kib=8", "lacks acc_kib"),
        ("dim=4,spad_kib=8,acc_kib=4,array=fp8", "array must be one of bf16, int8, not 'fp8'"),
        ("dim=four,spad_kib=8,acc_kib=4", "dim must be an integer, not 'four'"),
    ],
)
def test_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(text)


def test_the_array_is_part_of_the_geometry():
    plain, small = (parse_config("dim=4,spad_kib=8,acc_kib=4" + x) for x in ("", ",array=int8"))
    assert plain.array == "bf16" and "array" not in plain.geometry
    assert small.array == "int8" and small.geometry == plain.geometry + ",array=int8"
    assert parse_config(small.geometry) == small != plain
    assert ChipConfig(**small.to_dict()) == small
