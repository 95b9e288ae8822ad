"""Embedded colour profiles are converted to sRGB, by profiles whose effect can be worked out by hand."""

from __future__ import annotations

import logging
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from adaattn_core.io.images import (
    from_numpy,
    from_pil,
    load_image,
    load_mask,
)
from tests.helpers.pixels import SIZE, assert_color


def icc_profile(space: bytes, tags: dict[bytes, bytes], connection: bytes = b"XYZ ") -> bytes:
    """A version 2 ICC display profile with exactly these tags. Source: ICC.1:2001-04, sections 6.1 and 6.2."""
    offset, table, data = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        content += b"\0" * (-len(content) % 4)
        table += name + struct.pack(">II", offset + len(data), len(content))
        data += content
    illuminant = struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)  # D50
    head = struct.pack(
        ">I4sI4s4s4s12s4s", offset + len(data), b"", 0x02100000, b"mntr", space, connection, b"", b"acsp"
    )
    return (head + b"\0" * 28 + illuminant).ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


def matrix_profile(red: str = "red", green: str = "green", blue: str = "blue") -> bytes:
    """sRGB, its primaries assigned to the channels as named."""
    primaries = {"red": (0.4361, 0.2225, 0.0139), "green": (0.3851, 0.7169, 0.0971), "blue": (0.1431, 0.0606, 0.7141)}
    curve = b"para" + struct.pack(
        ">IHH5i", 0, 3, 0, *(round(v * 65536) for v in (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045))
    )
    tags = {}
    for channel, name in ((b"r", red), (b"g", green), (b"b", blue)):
        tags[channel + b"XYZ"] = b"XYZ " + struct.pack(">I3i", 0, *(round(value * 65536) for value in primaries[name]))
        tags[channel + b"TRC"] = curve
    return icc_profile(b"RGB ", tags)


def gamma_profile(gamma: float) -> bytes:
    return icc_profile(b"GRAY", {b"kTRC": b"curv" + struct.pack(">IIH", 0, 1, round(gamma * 256))})


def black_ink_profile(darkest: int = 0) -> bytes:
    """A press whose cyan, magenta and yellow are invisible and whose black takes the lightness from 255 to `darkest`.

    It is a table of 2x2x2x2 inks to 8-bit Lab.
    """
    identity = bytes(range(256))
    table = b"".join(bytes([darkest if index & 1 else 255, 128, 128]) for index in range(16))  # K varies fastest
    matrix = struct.pack(">9i", *(65536 if index % 4 == 0 else 0 for index in range(9)))
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + matrix + identity * 4 + table + identity * 3
    return icc_profile(b"CMYK", {b"A2B0": lut, b"A2B1": lut}, b"Lab ")


ONE_LEVEL = 1.01 / 255  # colour management works in 8 bits


def test_swapped_primaries_are_swapped_back(tmp_path: Path) -> None:
    """Where the first primary is green and the second red, (200, 100, 50) looks as (100, 200, 50) does in sRGB."""
    picture = Image.new("RGB", SIZE, (200, 100, 50))
    for name in ("a.png", "a.tif", "a.webp"):
        picture.save(tmp_path / name, icc_profile=matrix_profile("green", "red"), lossless=True)
        assert_color(load_image(tmp_path / name), (100 / 255, 200 / 255, 50 / 255), ONE_LEVEL)
    picture.info["icc_profile"] = matrix_profile("green", "red")
    assert_color(from_pil(picture), (100 / 255, 200 / 255, 50 / 255), ONE_LEVEL)


def test_an_srgb_profile_changes_nothing(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 20, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", icc_profile=matrix_profile())
    difference = (load_image(tmp_path / "a.png") - from_numpy(pixels)).abs()
    assert difference.max() <= ONE_LEVEL, f"max {difference.max() * 255:.2f} levels"


def test_alpha_and_palette_survive_a_profile(tmp_path: Path) -> None:
    profile = matrix_profile("green", "red")
    Image.new("RGBA", SIZE, (255, 0, 0, 102)).save(tmp_path / "rgba.png", icc_profile=profile)
    assert_color(load_image(tmp_path / "rgba.png"), (0.6, 1, 0.6), ONE_LEVEL)
    palette = Image.new("P", SIZE, 0)
    palette.putpalette([255, 0, 0])
    palette.save(tmp_path / "p.png", icc_profile=profile)
    assert_color(load_image(tmp_path / "p.png"), (0, 1, 0), ONE_LEVEL)


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_a_grey_profile(tmp_path: Path, mode: str) -> None:
    """Linear grey 0.2 is sRGB 1.055 * 0.2^(1/2.4) - 0.055 = 0.4845; a mask is data and stays 0.2."""
    value: int | tuple[int, int] = {"L": 51, "LA": (51, 255), "I;16": 13107}[mode]  # type: ignore[assignment]
    Image.new(mode, SIZE, value).save(tmp_path / "a.png", icc_profile=gamma_profile(1.0))
    assert_color(load_image(tmp_path / "a.png"), (0.4845, 0.4845, 0.4845), ONE_LEVEL)
    torch.testing.assert_close(load_mask(tmp_path / "a.png"), torch.full((1, 1, 16, 20), 0.2))


def test_a_grey_picture_may_have_an_rgb_profile(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.new("L", SIZE, 51).save(tmp_path / "a.png", icc_profile=matrix_profile("green", "red"))
    assert_color(load_image(tmp_path / "a.png"), (0.2, 0.2, 0.2), ONE_LEVEL)
    assert not caplog.records


@pytest.mark.parametrize("name", ["a.jpg", "a.tif"])
def test_a_cmyk_profile(tmp_path: Path, name: str) -> None:
    """Invisible cyan is white; K = 128/255 is L* = 49.8, so Y = 0.1827 and sRGB 0.4646 = 118.5/255."""
    for ink, expected in (((255, 0, 0, 0), 1.0), ((0, 0, 0, 128), 0.4646), ((0, 0, 0, 255), 0.0)):
        Image.new("CMYK", SIZE, ink).save(tmp_path / name, icc_profile=black_ink_profile(), quality=100)
        assert_color(load_image(tmp_path / name), (expected,) * 3, 2 / 255)


def test_the_darkest_ink_is_black(tmp_path: Path) -> None:
    """Black point compensation: full ink of L* = 20, which is sRGB 48 of 255 taken literally, comes out as 0."""
    Image.new("CMYK", SIZE, (0, 0, 0, 255)).save(tmp_path / "a.tif", icc_profile=black_ink_profile(darkest=51))
    assert_color(load_image(tmp_path / "a.tif"), (0, 0, 0), ONE_LEVEL)


@pytest.mark.parametrize("profile", [b"no profile at all", matrix_profile()[:200], gamma_profile(1.0)])
def test_a_broken_or_foreign_profile_is_ignored_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, profile: bytes
) -> None:
    Image.new("RGB", SIZE, (255, 51, 0)).save(tmp_path / "a.png", icc_profile=profile)
    with caplog.at_level(logging.WARNING):
        assert_color(load_image(tmp_path / "a.png"), (1, 0.2, 0))
    assert len(caplog.records) == 1
    assert caplog.records[0].message.startswith(f"{tmp_path / 'a.png'}: embedded colour profile ignored: ")
