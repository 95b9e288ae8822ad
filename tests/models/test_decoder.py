"""Decoder by hand: upsampling, cutting to size, and the last convolution."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from adaattn_core.models.decoder import Decoder
from adaattn_core.models.fusion import FusedFeatures
from tests.helpers.random_tensors import normals


def passing_decoder(upsample: str, skip: bool) -> Decoder:
    """Every convolution copies its first inputs; the last makes grey of the first channel."""
    decoder = Decoder((3, 3, 3, 3, 3), (1, 1, 1), skip, upsample)
    for module in decoder.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.dirac_(module.weight)
            assert module.bias is not None
            nn.init.zeros_(module.bias)
    return decoder.requires_grad_(False)


def test_decoder_by_hand() -> None:
    """Copying convolutions leave the upsampling: each relu4_1 position becomes 8 x 8 pixels, cut at the border.

    Values below 0 end at the first ReLU; the skip comes after the upsampled channels and is dropped by the copies.
    """
    deep = normals(1, 3, 2, 3)
    painted = passing_decoder("nearest", skip=True)(FusedFeatures(deep, torch.full((1, 3, 3, 5), 9.0)), (11, 18))
    wanted = deep.relu().repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)[..., :11, :18]
    assert torch.equal(painted, wanted)


def test_one_level_decoder_by_hand() -> None:
    deep = normals(1, 3, 3, 2).abs()
    painted = passing_decoder("nearest", skip=False)(FusedFeatures(deep, None), (10, 7))
    assert torch.equal(painted, deep.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)[..., :10, :7])


def test_the_last_convolution_is_linear() -> None:
    decoder = passing_decoder("nearest", skip=False)
    last = [module for module in decoder.modules() if isinstance(module, nn.Conv2d)][-1]
    last.weight.neg_()
    assert decoder(FusedFeatures(torch.ones(1, 3, 4, 4), None), (16, 16)).eq(-1).all()


def test_decoder_upsampling_is_as_asked() -> None:
    deep = normals(1, 3, 4, 4).abs()
    painted = passing_decoder("bilinear", skip=False)(FusedFeatures(deep, None), (16, 16))
    twice = F.interpolate(F.interpolate(deep, scale_factor=2, mode="bilinear"), scale_factor=2, mode="bilinear")
    torch.testing.assert_close(painted, twice)


@pytest.mark.parametrize("convs", [(1, 1), (1, 0, 1), (1, 1, 1, 1)])
def test_a_decoder_has_three_blocks(convs: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"^a decoder has three blocks; got convs \({convs[0]}, .*\)$"):
        Decoder((3,) * 5, convs)
