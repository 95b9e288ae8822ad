"""Comparison of two pictures, or of two maps of features."""

from __future__ import annotations

import torch
from torch import Tensor


def assert_same(ours: Tensor, wanted: Tensor, tolerance: float = 2e-5) -> None:
    """Equal up to float32 rounding: convolutions add up in another order for another batch, tile or memory layout."""
    torch.testing.assert_close(ours, wanted, rtol=0, atol=tolerance)


def difference(a: Tensor, b: Tensor) -> float:
    """Mean absolute difference, in 8-bit steps."""
    return float((a - b).abs().mean()) * 255
