"""Transparent pictures: a content keeps its colours and opacity, and a clear part of a style is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.helpers.command_line import MODEL, OIL, run
from tests.helpers.tiny_tiffs import REPORTS

Pixels = NDArray[np.uint8]


def pixels(path: str | Path) -> Pixels:
    with Image.open(path) as image:
        return np.asarray(image)


def hidden() -> Pixels:
    """(48, 64, 4): noise under an opacity of 0 on the left that rises to 255 on the right."""
    color = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    alpha = np.tile(np.linspace(0, 255, 64).round().astype(np.uint8), (48, 1))
    return np.dstack([color, alpha])


@pytest.fixture
def soft(folder: Path) -> Pixels:
    Image.fromarray(hidden()).save("soft.png")
    return hidden()


def test_strength_0_gives_the_own_colours_under_any_opacity(folder: Path) -> None:
    run(f"stylize {REPORTS / 'soft_alpha.png'} {OIL} --strength 0 -o out.png")
    assert (pixels("out.png") == pixels(REPORTS / "soft_alpha.png")).all()


def test_strength_0_keeps_hidden_colours_too(soft: Pixels) -> None:
    for suffix in ("png", "tif"):
        run(f"stylize soft.png {OIL} --strength 0 -o out.{suffix}")
        assert (pixels(f"out.{suffix}") == soft).all()
    run(f"stylize soft.png {OIL} --strength 0 --refine 1 -o out.png")
    assert (pixels("out.png") == soft).all()


def test_the_side_that_a_mask_leaves_out_keeps_its_own_colours(soft: Pixels) -> None:
    mask = np.zeros((48, 64), np.uint8)
    mask[24:] = 255
    Image.fromarray(mask).save("mask.png")
    for refine in ("", "--refine 1"):
        run(f"stylize soft.png {OIL} --content-mask mask.png {refine} -o out.png")
        result = pixels("out.png")
        assert (result[:24] == soft[:24]).all()
        assert (result[..., 3] == soft[..., 3]).all()
        assert (result[24:, 32:, :3] != soft[24:, 32:, :3]).any()


def test_what_is_hidden_does_not_change_what_is_painted(soft: Pixels) -> None:
    """The colours of clear pixels are noise of an editor."""
    other = soft.copy()
    other[soft[..., 3] == 0] = (255, 0, 255, 0)
    Image.fromarray(other).save("other.png")
    for name in ("soft", "other"):
        run(f"stylize {name}.png {OIL} -o {name}-out.png")
    visible = soft[..., 3] > 0
    assert (pixels("soft-out.png")[visible] == pixels("other-out.png")[visible]).all()


def test_a_format_without_opacity_shows_the_picture_over_white(soft: Pixels, caplog: pytest.LogCaptureFixture) -> None:
    run(f"stylize soft.png {OIL} --strength 0 -o out.bmp")
    alpha = soft[..., 3:] / 255
    expected = soft[..., :3] * alpha + 255 * (1 - alpha)
    assert np.abs(pixels("out.bmp") - expected).max() <= 0.51
    assert [record.message for record in caplog.records if "--" not in record.message] == [
        "soft.png: out.bmp cannot hold its opacity; it is painted over white"
    ]


@pytest.mark.parametrize("command", ["stylize photos/sea.png", "compare --content photos/sea.png --size 64"])
def test_the_clear_half_of_a_style_is_no_style(folder: Path, command: str) -> None:
    """Whatever colour is hidden there, even white, which would brighten the result."""
    cutout = pixels(REPORTS / "style_cutout.png").copy()
    results = []
    for name, color in (("a", 0), ("b", 255)):
        cutout[cutout[..., 3] == 0] = (color, color, color, 0)
        Image.fromarray(cutout).save(f"{name}.png")
        run(f"{command} --style {name}.png {MODEL} -o {name}-out.png")
        results.append(pixels(f"{name}-out.png"))
    assert (results[0] == results[1]).all()


def test_the_clear_half_of_a_style_is_masked(folder: Path) -> None:
    cutout = pixels(REPORTS / "style_cutout.png")
    mean = cutout[cutout[..., 3] > 0][:, :3].mean(axis=0)
    filled = np.where(cutout[..., 3:] > 0, cutout[..., :3], mean).round().astype(np.uint8)
    Image.fromarray(filled).save("filled.png")
    Image.fromarray(cutout[..., 3]).save("mask.png")
    run(f"stylize photos/sea.png --style {REPORTS / 'style_cutout.png'} {MODEL} -o cutout-out.png")
    run(f"stylize photos/sea.png --style filled.png --style-mask mask.png {MODEL} -o mask-out.png")
    run(f"stylize photos/sea.png --style {REPORTS / 'style_cutout.png'} --style-mask mask.png {MODEL} -o both-out.png")
    # The mean is rounded to bytes in filled.png.
    assert np.abs(pixels("cutout-out.png").astype(int) - pixels("mask-out.png")).max() <= 2
    assert (pixels("both-out.png") == pixels("cutout-out.png")).all()


def test_a_style_that_is_clear_everywhere_is_refused(complain: Callable[[str], str]) -> None:
    Image.new("RGBA", (32, 32), (255, 0, 0, 0)).save("clear.png")
    assert complain(f"stylize sea.png --style clear.png {MODEL} -o out.png") == (
        "clear.png is clear everywhere; a style needs visible parts. Choose another picture."
    )
    assert complain(f"compare --content sea.png --style clear.png {MODEL} -o out.png") == (
        "clear.png is clear in the square that is used; a style needs visible parts. Crop it first."
    )


def test_a_mask_that_is_black_everywhere_is_said_to_be(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.new("L", (56, 40)).save("black.png")
    run(f"stylize photos/sea.png {OIL} --content-mask black.png -o out.png")
    assert (pixels("out.png") == pixels("photos/sea.png")).all()
    assert [record.message for record in caplog.records] == [
        "black.png: this mask is black everywhere, so nothing is painted"
    ]


def test_a_mask_of_0_and_1_paints_as_one_of_0_and_255(folder: Path) -> None:
    for name in ("mask01", "mask255"):
        run(f"stylize {REPORTS / 'content.png'} {OIL} --content-mask {REPORTS / name}.png -o {name}.png")
    assert (pixels("mask01.png") == pixels("mask255.png")).all()
    assert (pixels("mask01.png") != pixels(REPORTS / "content.png")[..., :3]).any()
