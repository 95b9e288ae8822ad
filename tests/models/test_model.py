"""The whole model: sizes, batches, gradients and precision."""

from __future__ import annotations

import pytest
import torch

from adaattn_core.models.config import ModelConfig
from adaattn_core.models.fusion import MultiLevelFusion
from tests.helpers.comparison import assert_same
from tests.helpers.small_models import SMALL, SMALL_VIDEO, picture, small_model

BOTH = pytest.mark.parametrize("config", [SMALL, SMALL_VIDEO], ids=["image", "video"])


@BOTH
def test_every_size_comes_back(config: ModelConfig) -> None:
    """Heights with every remainder of 16 against changing widths and style sizes: even, odd, square, wide and tall."""
    model = small_model(config=config)
    for height in (*range(16, 32), 49, 62, 70):
        width, style_height, style_width = (16 + (height * step) % 55 for step in (7, 13, 29))
        painted = model(picture(height, width), picture(style_height, style_width, seed=1))
        assert painted.shape == (1, 3, height, width), f"{width}x{height} became {tuple(painted.shape)}"
        assert painted.isfinite().all(), f"{width}x{height} with {style_width}x{style_height} has NaN"


@BOTH
@pytest.mark.parametrize(("content", "style"), [((16, 400), (300, 16)), ((333, 17), (16, 16)), ((16, 16), (17, 401))])
def test_extreme_aspects_come_back(config: ModelConfig, content: tuple[int, int], style: tuple[int, int]) -> None:
    painted = small_model(config=config)(picture(*content), picture(*style, seed=1))
    assert painted.shape[-2:] == content and painted.isfinite().all()


@BOTH
def test_a_batch_is_its_items(config: ModelConfig) -> None:
    model, content, style = small_model(config=config), picture(37, 50, batch=3), picture(45, 33, batch=3, seed=1)
    whole = model(content, style)
    assert not torch.allclose(whole[0], whole[1], atol=0.01)
    for index in range(3):
        assert_same(whole[index : index + 1], model(content[index : index + 1], style[index : index + 1]), 1e-5)


@BOTH
def test_the_style_matters_and_its_arrangement_by_position_does_not_come_through(config: ModelConfig) -> None:
    """Attention sees a set of positions: a style mirrored by whole positions of every level is another set only
    through the borders of its convolutions; styles of one colour have one position, whatever their size."""
    model, content = small_model(config=config), picture(32, 40)
    flat = torch.tensor([0.9, 0.2, 0.4])[None, :, None, None]
    small, large = model(content, flat.expand(1, 3, 16, 16)), model(content, flat.expand(1, 3, 50, 33))
    assert_same(small, large, 1e-5)
    assert (model(content, picture(32, 40, seed=5)) - small).abs().max() > 0.02


@BOTH
def test_every_parameter_that_is_read_gets_a_gradient(config: ModelConfig) -> None:
    model = small_model(config=config).requires_grad_(True)
    model(picture(48, 40), picture(40, 48, seed=1)).square().mean().backward()
    # The video model stops at relu3_1; a softmax does not see what is added to all its logits.
    unread = ("encoder.layers.conv3_2", "encoder.layers.conv4", "encoder.layers.conv5") if config is SMALL_VIDEO else ()
    for name, parameter in model.named_parameters():
        if name.startswith(unread):
            assert parameter.grad is None
            continue
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0 or name.endswith("key_proj.bias"), name


def test_the_model_computes_in_float64_too() -> None:
    model, content, style = small_model(), picture(32, 40), picture(40, 32, seed=1)
    wanted = model(content, style)
    exact = model.double()(content.double(), style.double())
    assert exact.dtype == torch.float64
    torch.testing.assert_close(wanted.double(), exact, rtol=0, atol=1e-4)  # the root near variance 0 amplifies


def test_deepest_level() -> None:
    assert small_model().deepest == "relu5_1"
    assert small_model(config=SMALL_VIDEO).deepest == "relu3_1"


def test_initialize_reaches_every_level() -> None:
    with torch.random.fork_rng(devices=[]):
        fusion = MultiLevelFusion(SMALL.channels, SMALL.levels)
        fusion.initialize()
    for attention in map(fusion.level_attention, fusion.levels):
        assert torch.equal(attention.query_proj.weight, attention.key_proj.weight)
