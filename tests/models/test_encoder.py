"""Encoder: sizes of the levels, pictures that it cannot take, and the padding of its convolutions by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import autocast, nn

from adaattn_core.models.encoder import LEVELS, ReflectConv2d, VGGEncoder, conv_names, receptive_field, stride
from tests.helpers.random_tensors import normals
from tests.helpers.small_models import SMALL, picture, small_model


def test_conv_names_are_vgg19s_up_to_conv5_1() -> None:
    assert " ".join(conv_names((2, 2, 4, 4, 1))) == (
        "conv1_1 conv1_2 conv2_1 conv2_2 conv3_1 conv3_2 conv3_3 conv3_4 conv4_1 conv4_2 conv4_3 conv4_4 conv5_1"
    )


@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 32), (33, 64), (70, 19), (65, 31)])
def test_levels_have_rounded_up_sizes(height: int, width: int) -> None:
    features = small_model().encoder(picture(height, width))
    assert tuple(features) == LEVELS
    for index, level in enumerate(LEVELS):
        size = math.ceil(height / 2**index), math.ceil(width / 2**index)
        assert features[level].shape == (1, SMALL.channels[index], *size)
        assert features[level].min() >= 0


@pytest.mark.parametrize("deepest", LEVELS)
def test_the_encoder_stops_at_the_deepest_level(deepest: str) -> None:
    model, images = small_model(), picture(32, 24)
    before, full = images.clone(), model.encoder(images)
    shallow = model.encoder(images, deepest)
    assert tuple(shallow) == LEVELS[: LEVELS.index(deepest) + 1]
    assert all(torch.equal(shallow[level], full[level]) for level in shallow)
    assert torch.equal(images, before)


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        (
            (3, 16, 16),
            r"the picture is 1 picture of 16x16 pixels with 3 channels and no batch; .*: picture\[None\]\.",
        ),
        ((1, 1, 16, 16), r"the picture is 1 picture of 16x16 pixels with 1 channel; .* Repeat its channel: .*"),
        ((1, 3, 9, 12), r"the picture is 12x9 pixels; at least 16x16 are needed. Resize the picture first."),
        ((1, 3, 15, 99), r"the picture is 99x15 pixels; at least 16x16 are needed. Resize the picture first."),
    ],
)
def test_pictures_the_encoder_cannot_take(shape: tuple[int, ...], text: str) -> None:
    with pytest.raises(ValueError, match=f"^{text}$"):
        small_model().encoder(torch.zeros(shape))


@pytest.mark.parametrize(
    ("channels", "convs"), [((8,) * 4, (1,) * 5), ((8,) * 5, (1,) * 6), ((8,) * 5, (1, 1, 0, 1, 1))]
)
def test_an_encoder_has_five_blocks(channels: tuple[int, ...], convs: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="^an encoder has five blocks; got channels .* and convs "):
        VGGEncoder(channels, convs)


def box_filter() -> ReflectConv2d:
    """One channel; adds up the 3x3 neighbourhood."""
    conv = ReflectConv2d(1, 1)
    nn.init.ones_(conv.weight)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv.requires_grad_(False)


def test_convolutions_mirror_the_border() -> None:
    """Rows 1 2 3 and 4 5 6 become 5 4 5 6 5 / 2 1 2 3 2 / 5 4 5 6 5 / 2 1 2 3 2; the first sum is 14 + 5 + 14."""
    summed = box_filter()(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])[None, None])
    torch.testing.assert_close(summed, torch.tensor([[33.0, 36.0, 39.0], [24.0, 27.0, 30.0]])[None, None])


@pytest.mark.parametrize(
    ("size", "expected"), [((1, 1), [[9.0]]), ((1, 2), [[15.0, 12.0]]), ((2, 1), [[15.0], [12.0]])]
)
def test_an_axis_of_one_position_is_repeated(size: tuple[int, int], expected: list[list[float]]) -> None:
    """1 2 mirrored is 2 1 2 1: sums 5 and 4, three times. One alone: 9."""
    values = torch.arange(1.0, size[0] * size[1] + 1).reshape(1, 1, *size)
    assert torch.equal(box_filter()(values), torch.tensor(expected)[None, None])


def test_autocast_pads_in_half_precision() -> None:
    """The padded copy of a bfloat16 tensor stays bfloat16; the result is that of a plain bfloat16 convolution."""
    conv, x = box_filter(), normals(1, 1, 5, 5).bfloat16()
    with autocast("cpu", torch.bfloat16):
        result = conv(x)
    assert result.dtype == torch.bfloat16
    assert torch.equal(result, conv.bfloat16()(x))


@pytest.mark.parametrize("level", ["relu3_1", "relu4_1"])
def test_a_position_depends_on_the_pixels_of_its_receptive_field_and_on_no_others(level: str) -> None:
    """With positive weights and one bright pixel at a time none of the pixels in it is without an effect."""
    model = VGGEncoder((2, 2, 2, 2, 2), SMALL.encoder_convs).double()
    for parameter in model.parameters():
        parameter.data.fill_(0.1)
    side, step = receptive_field(SMALL.encoder_convs, level), stride(level)
    images = torch.rand(1, 3, 160, 160, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    images.requires_grad_()
    position = 80 // step
    model(images, deepest=level)[level][0, 0, position, position].backward()
    assert images.grad is not None
    seen = images.grad[0].abs().sum(dim=0).nonzero()
    centre = position * step + (step - 1) / 2
    assert bool(((seen - centre).abs() <= (side - 1) / 2).all())
    pooled = 2 ** (LEVELS.index(level) + 1)  # a max pool passes the gradient to one pixel of each of its windows on
    assert bool((seen.amax(dim=0) - seen.amin(dim=0) + 1 >= side - pooled).all())
