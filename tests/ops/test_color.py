"""Keeping the colours of the content: the luma of one picture with the chroma of another."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from adaattn_core.ops.color import keep_color


def luma(image: Tensor) -> Tensor:
    return 0.2126 * image[:, 0] + 0.7152 * image[:, 1] + 0.0722 * image[:, 2]


def test_keep_color_by_hand() -> None:
    """Red (1, 0, 0) has luma 0.2126 and chroma (0.7874, -0.2126, -0.2126).

    At luma 0.2126 it fits as it is. At 0.5 there is room for 0.5 / 0.7874 = 0.635 of it: (1, 0.365, 0.365).
    At 0 and 1 there is room for none.
    """
    red = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1)
    for grey, expected in ((0.2126, (1, 0, 0)), (0.5, (1, 0.365, 0.365)), (0, (0, 0, 0)), (1, (1, 1, 1))):
        result = keep_color(torch.full((1, 3, 1, 1), float(grey)), red)
        torch.testing.assert_close(result.flatten(), torch.tensor(expected, dtype=torch.float32), atol=1e-4, rtol=0)


def test_keep_color_has_the_luminance_of_one_and_the_hue_of_the_other() -> None:
    generator = torch.Generator().manual_seed(0)
    stylized, content = (torch.rand(2, 3, 8, 8, generator=generator) for _ in range(2))
    result = keep_color(stylized, content)
    assert result.min() >= 0 and result.max() <= 1
    torch.testing.assert_close(luma(result), luma(stylized))
    hue = torch.nn.functional.cosine_similarity(result - luma(result)[:, None], content - luma(content)[:, None])
    assert hue.min() > 0.999
    torch.testing.assert_close(keep_color(content, content), content)
    torch.testing.assert_close(
        keep_color(stylized, content.mean(1, keepdim=True).expand_as(content)),
        luma(stylized)[:, None].expand_as(content),
    )


def test_keep_color_needs_one_size() -> None:
    with pytest.raises(ValueError) as caught:
        keep_color(torch.zeros(1, 3, 4, 5), torch.zeros(1, 3, 4, 6))
    assert str(caught.value) == (
        "stylized is 1 picture of 5x4 pixels with 3 channels, content is 1 picture of 6x4 pixels with 3 channels; "
        "one size is needed. Resize the content first."
    )
