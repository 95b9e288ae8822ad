"""Channel statistics of feature maps."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

VARIANCE_EPSILON = 1e-5

CHUNK_BYTES = 2**20
"""Memory for the features of a chunk, which should stay in the CPU's cache between the two passes."""


def channel_mean_std(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel over all positions: the statistics AdaIN matches.

    Differs from AdaIN's: the variance is unbiased and 1e-5 is added before the root, as in the
    published AdaAttN code, whose weights expect it.

    Args:
        features: (B, C, H, W), any range.

    Returns:
        mean, std: each (B, C, 1, 1) in float32; std >= sqrt(1e-5). The variance of a single position is 0.
    """
    features = to_float32(features)
    unbiased = int(features.shape[-1] * features.shape[-2] > 1)
    if torch.is_grad_enabled() or features.device.type != "cpu":
        variance, mean = torch.var_mean(features, dim=(2, 3), correction=unbiased, keepdim=True)
    else:
        variance, mean = _var_mean(features, unbiased)
    return mean, (variance + VARIANCE_EPSILON).sqrt()


def _var_mean(features: Tensor, correction: int) -> tuple[Tensor, Tensor]:
    """`torch.var_mean` over positions, on the CPU in an eighth of its time: two passes over chunks of rows."""
    batch, channels, height, width = features.shape
    rows = max(1, CHUNK_BYTES // (batch * channels * width * features.element_size()))
    chunks = torch.split(features, rows, dim=2)
    mean = torch.stack([chunk.sum(dim=(2, 3), keepdim=True) for chunk in chunks]).sum(dim=0) / (height * width)
    squares = [(chunk - mean).square_().sum(dim=(2, 3), keepdim=True) for chunk in chunks]
    return torch.stack(squares).sum(dim=0) / (height * width - correction), mean


def weighted_mean_std(features: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel over weighted positions.

    Differs from `channel_mean_std`: the variance is biased.

    Args:
        features: (B, C, H, W), any range.
        weights: (B or 1, 1, H, W), see `position_weights`; None weighs all positions equally.

    Returns:
        mean, std: each (B, C) in float32; std >= sqrt(1e-5).
    """
    features = features.float()
    if weights is None:
        variance, mean = torch.var_mean(features, dim=(2, 3), correction=0)
    else:
        mean = (features * weights).sum(dim=(2, 3))
        variance = ((features - mean[..., None, None]).square() * weights).sum(dim=(2, 3))
    return mean, (variance + VARIANCE_EPSILON).sqrt()


def position_weights(mask: Tensor | None, features: Tensor) -> Tensor | None:
    """(1, 1, H, W) with sum 1 on the grid of `features`, from a mask (1, 1, h, w) in pixels; None stays None."""
    if mask is None:
        return None
    weights = F.adaptive_avg_pool2d(mask, (features.shape[-2], features.shape[-1]))
    return weights / weights.sum().clamp_min(torch.finfo(weights.dtype).tiny)


def normalize_channels(features: Tensor) -> Tensor:
    """Features with mean 0 and standard deviation 1 in each channel: `Norm` of the paper.

    Args:
        features: (B, C, H, W), any range.

    Returns:
        (B, C, H, W) float32.
    """
    mean, std = channel_mean_std(features)
    return (to_float32(features) - mean) / std


def to_float32(x: Tensor) -> Tensor:
    """`x` in float32; float64 is kept."""
    return x if x.dtype == torch.float64 else x.float()
