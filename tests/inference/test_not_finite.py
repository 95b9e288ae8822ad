"""A model whose numbers overflow paints nothing, and the error names the layer."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from adaattn_core import ImageError, stylize
from adaattn_core.models.model import StyleTransferModel
from tests.helpers.small_models import picture, small_model

GET_AGAIN = r"Its weights are too large: get the file again, or an earlier one\.$"


def enlarge(model: StyleTransferModel, names: list[str], factor: float) -> StyleTransferModel:
    with torch.no_grad():
        for name in names:
            layer = model.get_submodule(name)
            assert isinstance(layer, nn.Conv2d)
            layer.weight.mul_(factor)
    return model


@pytest.mark.parametrize(
    ("enlarged", "named"),
    [
        (["decoder.deep", "decoder.blocks.0.1"], "decoder.blocks.0.1"),
        (["encoder.layers.conv1_2", "encoder.layers.conv2_1"], "encoder.layers.conv2_1"),
        (["fusion.merge_conv", "decoder.deep"], "decoder.deep"),
        (["fusion.attention.relu4_1.value_proj", "fusion.merge_conv"], "the attention"),
    ],
)
def test_the_layer_is_named(enlarged: list[str], named: str) -> None:
    model = enlarge(small_model(), enlarged, 1e30)
    with pytest.raises(ImageError, match=rf"^{re.escape(named)} of the model gives NaN or infinity\. {GET_AGAIN}"):
        stylize(model, picture(40, 48), picture(32, 40, seed=1))


def test_half_precision_is_advised_against() -> None:
    model = enlarge(small_model(), ["decoder.deep", "decoder.blocks.0.1"], 1e5).set_precision(torch.float16)
    with pytest.raises(
        ImageError, match=r"^decoder\.\S+ of the model gives NaN or infinity\. Compute it in float32\.$"
    ):
        stylize(model, picture(40, 48), picture(32, 40, seed=1))


def test_infinity_does_not_become_white() -> None:
    model = small_model()
    with torch.no_grad():
        last = model.get_submodule("decoder.blocks.2.1")
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        last.bias.fill_(3e38).mul_(10)
    with pytest.raises(ImageError, match=r"^decoder\.blocks\.2\.1 of the model gives NaN or infinity\."):
        stylize(model, picture(40, 48), picture(32, 40, seed=1))


def test_afterwards_no_hook_is_left() -> None:
    model = enlarge(small_model(), ["decoder.deep", "decoder.blocks.0.1"], 1e30)
    with pytest.raises(ImageError):
        stylize(model, picture(40, 48), picture(32, 40, seed=1))
    assert [name for name, module in model.named_modules() if module._forward_hooks] == []
