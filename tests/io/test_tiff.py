"""TIFFs that Pillow alone reads wrongly: a ramp goes from black to white, or the file is refused in one line."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from adaattn_core.errors import ImageError
from adaattn_core.io.images import load_alpha, load_image
from tests.helpers.tiny_tiffs import REPORTS, SIDE, ramp, write_tiff

BITS, POLARITY, STORAGE, SAMPLES, PREDICTOR, FORMAT = 258, 262, 284, 277, 317, 339
REFUSED = " is a TIFF of a kind that cannot be read ({}). Export it as PNG, or as a TIFF with 8 or 16 bits."


def assert_ramp(image: Tensor, step: float) -> None:
    """All channels and rows go from black on the left to white on the right, within half a step of the numbers."""
    expected = torch.linspace(0, 1, image.shape[-1])
    difference = (image - expected).abs().max()
    assert difference <= step / 2 + 1e-6, f"{image[0, 0, 0, :4].tolist()} ... differ by {difference:.4f}"


@pytest.mark.parametrize(("name", "white"), [("white_is_zero16.tif", 65535), ("grey12.tif", 4095)])
def test_reported_ramps_go_from_black_to_white(name: str, white: int) -> None:
    assert_ramp(load_image(REPORTS / name), 1 / white)
    assert load_alpha(REPORTS / name) is None


RAMPS: dict[str, tuple[str, int | float, Mapping[int, tuple[int, ...]]]] = {
    "8 bit": ("u1", 255, {BITS: (8,)}),
    "8 bit, white is zero": ("u1", 255, {BITS: (8,), POLARITY: (0,)}),
    "8 bit signed": ("i1", 127, {BITS: (8,), FORMAT: (2,)}),
    "16 bit": ("u2", 65535, {BITS: (16,)}),
    "16 bit signed": ("i2", 32767, {BITS: (16,), FORMAT: (2,)}),
    "32 bit": ("u4", 2**32 - 1, {BITS: (32,)}),
    "32 bit with values of 16 bit": ("u4", 65535, {BITS: (32,)}),
    "32 bit signed": ("i4", 2**31 - 1, {BITS: (32,), FORMAT: (2,)}),
    "float": ("f4", 1.0, {BITS: (32,), FORMAT: (3,)}),
    "float to 255": ("f4", 255.0, {BITS: (32,), FORMAT: (3,)}),
    "float, white is zero": ("f4", 1.0, {BITS: (32,), FORMAT: (3,), POLARITY: (0,)}),
}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("name", RAMPS)
def test_grey_of_every_sample_type_goes_from_black_to_white(tmp_path: Path, name: str, order: str) -> None:
    """A kind that Pillow does not know in one byte order is refused there; it is never read as something else."""
    kind, white, tags = RAMPS[name]
    values = ramp(kind, white)
    stored = values[:, ::-1] if tags.get(POLARITY) == (0,) else values
    write_tiff(tmp_path / "a.tif", [(stored.astype(order + kind).tobytes(), tags)], order)
    try:
        image = load_image(tmp_path / "a.tif")
    except ImageError as error:
        assert order == ">" and "is a TIFF of a kind that cannot be read" in str(error)
    else:
        assert_ramp(image, 1 / min(white, 65535) if white > 1 else 0)


def planes(kind: str, white: int, count: int) -> bytes:
    return np.stack([ramp(kind, white)] * count).astype(kind).tobytes()


REFUSALS: dict[str, tuple[bytes, Mapping[int, tuple[int, ...]], str]] = {
    "16 bit RGB by planes": (
        planes("<u2", 65535, 3), {BITS: (16, 16, 16), POLARITY: (2,), SAMPLES: (3,), STORAGE: (2,)},
        "3 x 16 bit, whole numbers, stored plane by plane",
    ),
    "16 bit CMYK by planes": (
        planes("<u2", 65535, 4), {BITS: (16,) * 4, POLARITY: (5,), SAMPLES: (4,), STORAGE: (2,)},
        "4 x 16 bit, whole numbers, stored plane by plane",
    ),
    "LAB by planes": (
        planes("u1", 255, 3), {BITS: (8, 8, 8), POLARITY: (8,), SAMPLES: (3,), STORAGE: (2,)},
        "3 x 8 bit, whole numbers, stored plane by plane",
    ),
    "float RGB": (
        np.repeat(ramp("f4", 1)[..., None], 3, -1).astype("<f4").tobytes(),
        {BITS: (32, 32, 32), POLARITY: (2,), SAMPLES: (3,), FORMAT: (3, 3, 3)}, "3 x 32 bit, decimal numbers",
    ),
    "10 bit": (bytes(16 * 20), {BITS: (10,)}, "1 x 10 bit, whole numbers"),
    "differences that PackBits does not undo": (
        b"".join(b"\x0f" + row.tobytes() for row in ramp("u1", 255)), {BITS: (8,), PREDICTOR: (2,), 259: (32773,)},
        "1 x 8 bit, whole numbers",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_a_kind_that_cannot_be_read_correctly_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    data, tags, kind = REFUSALS[name]
    write_tiff(tmp_path / "a.tif", [(data, tags)])
    with pytest.raises(ImageError) as caught:
        load_image(tmp_path / "a.tif")
    assert str(caught.value) == str(tmp_path / "a.tif") + REFUSED.format(kind)


def test_planes_of_8_bit_are_joined(tmp_path: Path) -> None:
    tags = {BITS: (8, 8, 8), POLARITY: (2,), SAMPLES: (3,), STORAGE: (2,)}
    write_tiff(tmp_path / "a.tif", [(planes("u1", 255, 3), tags)])
    assert_ramp(load_image(tmp_path / "a.tif"), 1 / 255)


@pytest.mark.parametrize("preview", [1, 4])
def test_a_preview_or_mask_before_the_picture_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, preview: int
) -> None:
    pages = [(bytes(256), {BITS: (8,), 254: (preview,)}), (ramp("u1", 255).tobytes(), {BITS: (8,)})]
    path = tmp_path / "a.tif"
    write_tiff(path, pages)
    assert_ramp(load_image(path), 1 / 255)
    assert [record.message for record in caplog.records] == [
        f"{path}: its first page is a preview; page 2, the picture itself, is used"
    ]
    write_tiff(path, pages[:1])
    with pytest.raises(ImageError) as caught:
        load_image(path)
    assert str(caught.value) == f"{path} holds only a preview of a picture. Export the picture itself."


def test_values_that_a_rule_interprets_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    values = np.full((SIDE, SIDE), 3.0, np.float32)
    values[0] = -1
    Image.fromarray(values).save(tmp_path / "a.tif")
    with caplog.at_level(logging.WARNING):
        load_image(tmp_path / "a.tif")
        load_image(tmp_path / "a.tif")
    assert [record.message.replace(str(tmp_path), "") for record in caplog.records] == [
        "/a.tif: values that are negative or no numbers count as black",
        "/a.tif: its values reach 3; 255 counts as white",
    ]
