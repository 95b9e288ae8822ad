"""Resizing by a side, antialiased, without overshoot."""

from __future__ import annotations

import pytest
import torch

from adaattn_core.ops.resize import resize_image


def test_resize_sides() -> None:
    image = torch.rand(2, 3, 40, 60, generator=torch.Generator().manual_seed(0))
    assert resize_image(image, short_side=20).shape == (2, 3, 20, 30)
    assert resize_image(image, long_side=90).shape == (2, 3, 60, 90)
    assert resize_image(image, size=(17, 99)).shape == (2, 3, 17, 99)
    assert resize_image(image, short_side=40) is image
    assert resize_image(torch.zeros(1, 1, 20, 400), long_side=100).shape == (1, 1, 16, 100)  # 5 high would be too low


def test_resize_averages_and_stays_in_range() -> None:
    """A one-pixel checkerboard has no frequency left at a third of the size: grey. A hard edge does not overshoot."""
    checkerboard = (torch.arange(96)[:, None] + torch.arange(96)).remainder(2).float()[None, None]
    inside = resize_image(checkerboard, size=(32, 32))[..., 2:-2, 2:-2]
    assert (inside - 0.5).abs().max() < 0.01  # without antialiasing it is 0 or 1
    edge = (torch.arange(64) < 32).float().expand(1, 3, 64, 64)
    enlarged = resize_image(edge, size=(64, 256))
    assert enlarged.min() == 0 and enlarged.max() == 1
    ramp = resize_image(torch.linspace(0, 1, 64).expand(1, 1, 64, 64), size=(16, 64))
    torch.testing.assert_close(ramp[0, 0, 8], torch.linspace(0, 1, 64))  # rows alike: only the height changed


@pytest.mark.parametrize(
    ("sizes", "came"),
    [
        ({}, "no size"),
        ({"short_side": 20, "long_side": 40}, "short_side=20 and long_side=40"),
        ({"short_side": 15}, "short_side=15"),
        ({"long_side": 0}, "long_side=0"),
        ({"size": (32, 8)}, "size=(32, 8)"),
    ],
)
def test_resize_errors(sizes: dict[str, int], came: str) -> None:
    with pytest.raises(ValueError) as caught:
        resize_image(torch.zeros(1, 3, 32, 32), **sizes)  # type: ignore[arg-type]
    assert str(caught.value) == (f"{came} came; one of short_side, long_side and size is needed, 16 pixels or more.")
