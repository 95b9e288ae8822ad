"""Convolutions by Winograd's algorithm: those of the direct one, where they are used."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, autocast

from adaattn_core.models.encoder import ReflectConv2d, reflect_pad1
from adaattn_core.ops import winograd


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [(1, 1), (3, 8), (17, 6), (40, 65)])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("limit", [0, 2**18, 2**24])  # many chunks and many pieces of the kernel, some, one
def test_it_is_the_direct_convolution(
    size: tuple[int, int], batch: int, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(winograd, "CHUNK_BYTES", limit)
    monkeypatch.setattr(winograd, "KERNEL_BYTES", 4 * limit)
    x, weight, bias = normals(batch, 64, *size), normals(160, 64, 3, 3, seed=1) / 24, normals(160)
    for layout in (torch.contiguous_format, torch.channels_last):
        found = winograd.conv3x3(x.to(memory_format=layout), weight.to(memory_format=layout), bias)
        wanted = F.conv2d(reflect_pad1(x.double()), weight.double(), bias.double())
        torch.testing.assert_close(found.double(), wanted, rtol=0, atol=1e-4)


def test_it_is_for_wide_convolutions_without_gradients() -> None:
    x, weight = normals(1, 64, 9, 9), normals(64, 64, 3, 3)
    assert not winograd.is_faster(x, weight)
    with torch.no_grad():
        assert winograd.is_faster(x, weight)
        assert not winograd.is_faster(x, weight[:3])
        assert winograd.is_faster(x.bfloat16(), weight.bfloat16())
        assert not winograd.is_faster(x.double(), weight.double())
        assert not winograd.is_faster(x.to("meta"), weight.to("meta"))


def test_a_convolution_with_gradients_is_the_one_without() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        conv = ReflectConv2d(64, 64)
    x = normals(2, 64, 20, 30)
    trained = conv(x)
    assert trained.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(conv(x), trained, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rounds_numbers_and_not_what_is_made_between_them(dtype: torch.dtype) -> None:
    """What comes in, weights and results are rounded: no more than a processor's own half precision loses."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        conv = ReflectConv2d(64, 64).to(dtype)
    x = normals(2, 64, 20, 30)
    with torch.no_grad():
        found = conv(x)
        wanted = ReflectConv2d.forward(conv.double(), x.to(dtype))
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), wanted, rtol=torch.finfo(dtype).eps, atol=2e-5)


def test_autocast_decides_on_the_precision_itself() -> None:
    """In bfloat16 Winograd's transforms would lose the picture; the direct convolution does not."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        conv = ReflectConv2d(64, 64)
    x = normals(1, 64, 20, 30)
    with torch.no_grad(), autocast("cpu", torch.bfloat16):
        found = conv(x)
    assert found.dtype == torch.bfloat16
    with torch.no_grad():
        torch.testing.assert_close(found.float(), conv(x), rtol=0, atol=0.02)
