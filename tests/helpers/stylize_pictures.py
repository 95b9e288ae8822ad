"""The content, the styles and the style mask of the tests of `stylize`."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.helpers.small_models import picture

CONTENT = picture(37, 50)
STYLE, OTHER = picture(45, 34, seed=1), picture(32, 48, seed=2)


def left_half(height: int, width: int) -> Tensor:
    """(1, 1, height, width): 1 in the left half, 0 in the right."""
    return (torch.arange(width) < width // 2).float().expand(1, 1, height, width)
