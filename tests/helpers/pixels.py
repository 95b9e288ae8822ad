"""Pictures of one colour, and the check of it."""

from __future__ import annotations

import torch
from torch import Tensor

SIZE = (20, 16)  # PIL's order: 20 wide, 16 high


def assert_color(image: Tensor, expected: tuple[float, ...], atol: float = 1e-6) -> None:
    """Every pixel of (1, 3, H, W) is `expected`."""
    difference = (image - torch.tensor(expected).view(1, 3, 1, 1)).abs()
    assert difference.max() <= atol, f"{image[0, :, 0, 0].tolist()} at the top left instead of {expected}"
