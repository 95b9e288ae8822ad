"""Mean and deviation of channels: by hand, by property, and in half precision."""

from __future__ import annotations

import math

import pytest
import torch

from adaattn_core.ops.statistics import channel_mean_std, normalize_channels
from tests.helpers.random_tensors import normals


def test_channel_mean_std_by_hand() -> None:
    """1, 2, 3, 6: mean 3, squares of the deviations 4 + 1 + 0 + 9 = 14, unbiased variance 14 / 3."""
    mean, std = channel_mean_std(torch.tensor([1.0, 2.0, 3.0, 6.0]).reshape(1, 1, 2, 2))
    assert mean.shape == std.shape == (1, 1, 1, 1)
    assert mean.item() == 3
    assert std.item() == pytest.approx(math.sqrt(14 / 3 + 1e-5), rel=1e-6)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_channel_mean_std_is_the_same_with_and_without_gradients(
    layout: torch.memory_format, dtype: torch.dtype
) -> None:
    """Without, in pieces: here of 9 rows and a last one of 2, far from 0 for the rounding to show."""
    features = (100 + 0.01 * normals(2, 64, 200, 227, seed=1, dtype=dtype)).contiguous(memory_format=layout)
    with_gradients = channel_mean_std(features)
    with torch.no_grad():
        without = channel_mean_std(features)
    for found, wanted in zip(without, with_gradients, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=0)


def test_one_position_has_variance_zero() -> None:
    mean, std = channel_mean_std(torch.full((2, 3, 1, 1), 7.0))
    assert mean.eq(7).all()
    torch.testing.assert_close(std, torch.full((2, 3, 1, 1), math.sqrt(1e-5)))
    assert normalize_channels(torch.full((2, 3, 1, 1), 7.0)).eq(0).all()


def test_normalized_channels_have_mean_0_and_deviation_1() -> None:
    normalized = normalize_channels(5 + 3 * normals(2, 4, 6, 7))
    torch.testing.assert_close(normalized.mean(dim=(2, 3)), torch.zeros(2, 4), rtol=0, atol=1e-6)
    # 1e-5 in the variance, which is about 9: the deviation is short of 1 by 1e-5 / 18.
    torch.testing.assert_close(normalized.std(dim=(2, 3)), torch.ones(2, 4), rtol=0, atol=2e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_channels_of_half_precision_are_computed_in_float32(dtype: torch.dtype) -> None:
    features = (30 + normals(1, 2, 8, 8)).to(dtype)
    for ours, widened in zip(channel_mean_std(features), channel_mean_std(features.float()), strict=True):
        assert ours.dtype == torch.float32 and torch.equal(ours, widened)
    assert torch.equal(normalize_channels(features), normalize_channels(features.float()))
