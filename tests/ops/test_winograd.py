"""Winograd's algorithm gives the result of the direct convolution, and is used where it is faster."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import autocast

from adaattn_core.models.encoder import ReflectConv2d, reflect_pad1
from adaattn_core.ops import winograd
from tests.helpers.random_tensors import normals


@pytest.mark.parametrize("size", [(1, 1), (3, 8), (17, 6), (40, 65)])
def test_it_equals_the_direct_convolution(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """In many chunks and many parts of the kernel, in some, and in one."""
    x, weight, bias = normals(3, 64, *size), normals(160, 64, 3, 3, seed=1) / 24, normals(160)
    expected = F.conv2d(reflect_pad1(x.double()), weight.double(), bias.double())
    layouts = (torch.contiguous_format, torch.channels_last)
    for limit, batch, layout in itertools.product((0, 2**18, 2**24), (1, 3), layouts):
        monkeypatch.setattr(winograd, "CHUNK_BYTES", limit)
        monkeypatch.setattr(winograd, "KERNEL_BYTES", 4 * limit)
        actual = winograd.conv3x3(x[:batch].to(memory_format=layout), weight.to(memory_format=layout), bias)
        difference = (actual.double() - expected[:batch]).abs().max()
        assert difference < 1e-4, f"limit {limit}, batch {batch}, {layout}: {difference}"


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (6, 1), (2, 2), (5, 8)])
def test_float16_is_padded_as_float32_is(size: tuple[int, int]) -> None:
    x = normals(2, 3, *size).half()
    assert torch.equal(reflect_pad1(x).float(), reflect_pad1(x.float()))


def test_it_is_used_for_wide_convolutions_without_gradients() -> None:
    x, weight = normals(1, 64, 9, 9), normals(64, 64, 3, 3)
    assert not winograd.is_faster(x, weight)
    with torch.no_grad():
        assert winograd.is_faster(x, weight)
        assert not winograd.is_faster(x, weight[:3])
        assert winograd.is_faster(x.bfloat16(), weight.bfloat16())
        assert not winograd.is_faster(x.double(), weight.double())
        assert not winograd.is_faster(x.to("meta"), weight.to("meta"))


def test_a_convolution_gives_the_same_with_and_without_gradients() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        conv = ReflectConv2d(64, 64)
    x = normals(2, 64, 20, 30)
    trained = conv(x)
    assert trained.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(conv(x), trained, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rounds_inputs_and_results_only(dtype: torch.dtype) -> None:
    """Inputs, weights and results are rounded, intermediate values are not: no more than a direct convolution loses."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        conv = ReflectConv2d(64, 64).to(dtype)
    x = normals(2, 64, 20, 30)
    with torch.no_grad():
        actual = conv(x)
        expected = ReflectConv2d.forward(conv.double(), x.to(dtype))
    assert actual.dtype == dtype
    torch.testing.assert_close(actual.double(), expected, rtol=torch.finfo(dtype).eps, atol=2e-5)


def test_autocast_uses_the_direct_convolution() -> None:
    """Winograd's transforms in bfloat16 would be far off; the direct convolution is not."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        conv = ReflectConv2d(64, 64)
    x = normals(1, 64, 20, 30)
    with torch.no_grad(), autocast("cpu", torch.bfloat16):
        actual = conv(x)
    assert actual.dtype == torch.bfloat16
    with torch.no_grad():
        torch.testing.assert_close(actual.float(), conv(x), rtol=0, atol=0.02)
