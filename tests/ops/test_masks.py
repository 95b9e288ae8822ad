"""Masks brought to size, sharpened, turned round and softened, against values worked out by hand."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from adaattn_core.ops.masks import feather_mask, fit_mask, resize_mask, shape_mask
from adaattn_core.runtime.remarks import collected_remarks
from tests.helpers.small_models import picture


def row(*values: float) -> Tensor:
    """(1, 1, 3, n): the same values in every row."""
    return torch.tensor(values).expand(1, 1, 3, -1)


@pytest.mark.parametrize("stretch", [False, True])
def test_a_mask_of_the_right_size_keeps_its_values(stretch: bool) -> None:
    mask = torch.rand(20, 30, generator=torch.Generator().manual_seed(0))
    fitted = fit_mask(mask, picture(20, 30), "content", stretch=stretch)
    assert fitted.shape == (1, 1, 20, 30) and torch.equal(fitted[0, 0], mask)


def test_stretching_takes_a_mask_of_another_aspect() -> None:
    """Left half white, 4 x 2, stretched to 20 x 60: still the left half, but for the slope between the two columns."""
    with collected_remarks() as notes:
        fitted = fit_mask(torch.tensor([[1.0, 0.0]] * 4), picture(20, 60), "content", stretch=True)
    assert [note.text for note in notes] == [
        "the content mask is 2x4 pixels, the content 60x20: another aspect ratio, so that the mask is stretched"
    ]
    assert fitted.shape == (1, 1, 20, 60)
    assert bool((fitted[..., :15] == 1).all()) and bool((fitted[..., 45:] == 0).all())
    with pytest.raises(ValueError, match="another aspect ratio"):
        fit_mask(torch.tensor([[1.0, 0.0]] * 4), picture(20, 60), "content")


@pytest.mark.parametrize("mask", [torch.ones(40, 60), torch.zeros(4, 2)], ids=["twice as large", "empty"])
def test_nothing_is_said_of_a_mask_that_is_only_enlarged_or_empty(mask: torch.Tensor) -> None:
    with collected_remarks() as notes:
        fit_mask(mask, picture(20, 30), "content", stretch=True)
    assert notes == []


def test_a_shrunk_mask_is_averaged() -> None:
    """Columns 0 1 0 1 ... at half the size: a half everywhere, but for the border."""
    stripes = (torch.arange(40) % 2).float().expand(1, 1, 40, 40)
    torch.testing.assert_close(resize_mask(stripes, (20, 20))[..., 2:-2], torch.full((1, 1, 20, 16), 0.5))


def test_threshold_then_invert_then_feather() -> None:
    grey = row(0.2, 0.5, 0.7, 0.7, 0.1, 0.1)
    assert torch.equal(shape_mask(grey), grey)
    assert torch.equal(shape_mask(grey, threshold=0.5), row(0, 1, 1, 1, 0, 0))
    assert torch.equal(shape_mask(grey, invert=True), 1 - grey)
    assert torch.equal(shape_mask(grey, threshold=0.5, invert=True), row(1, 0, 0, 0, 1, 1))
    feathered = shape_mask(grey, threshold=0.5, invert=True, feather=1)
    torch.testing.assert_close(feathered, row(2, 1, 0, 1, 2, 3) / 3)


@pytest.mark.parametrize(
    ("feather", "slope"),
    [
        (1, [0, 1 / 3, 2 / 3, 1]),
        (2, [0, 1 / 9, 3 / 9, 6 / 9, 8 / 9, 1]),
    ],
)
def test_a_feathered_step(feather: int, slope: list[float]) -> None:
    """Two box filters over a step: a ramp, or a ramp with rounded ends; solved by hand."""
    step = row(*[0.0] * 6, *[1.0] * 6)
    start = 6 - feather - 1
    torch.testing.assert_close(feather_mask(step, feather)[0, 0, 1, start : start + len(slope)], torch.tensor(slope))


@pytest.mark.parametrize("feather", [1, 2, 7, 30])
def test_beyond_the_feather_nothing_changes(feather: int) -> None:
    mask = torch.zeros(2, 1, 130, 140)
    mask[0, :, 64:, :] = 1
    mask[1, :, :, 70:] = 1
    soft = feather_mask(mask, feather)
    assert bool((soft[0, :, : 64 - feather] == 0).all()) and bool((soft[0, :, 64 + feather :] == 1).all())
    assert bool((soft[1, :, :, : 70 - feather] == 0).all()) and bool((soft[1, :, :, 70 + feather :] == 1).all())
    assert bool((soft.diff(dim=2)[0] >= 0).all()) and bool((soft.diff(dim=3)[1] >= 0).all())
    inner = soft[0, 0, 64 - feather : 64 + feather, 0]
    assert bool(((inner > 0) & (inner < 1)).all())
    torch.testing.assert_close(inner + inner.flip(0), torch.ones(2 * feather))  # as much outside as inside


def test_a_white_mask_stays_white_to_the_border() -> None:
    assert torch.equal(feather_mask(torch.ones(1, 1, 20, 30), 50), torch.ones(1, 1, 20, 30))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"threshold": 1.5}, "the mask's threshold is 1.5; it must be between 0 and 1 (0 keeps soft values)"),
        ({"feather": -1}, "the mask's feather is -1 pixels; it must not be negative"),
    ],
)
def test_errors_of_shaping(options: dict[str, float], text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        shape_mask(row(0, 1), **options)  # type: ignore[arg-type]
