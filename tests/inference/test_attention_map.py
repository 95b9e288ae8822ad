"""Attention of a point: the weights that the model paints with, and the colours they are shown in."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from adaattn_core import ModelConfig
from adaattn_core.inference.attention_map import INFERNO, attention_map, overlay_heatmap, to_brightness
from adaattn_core.inference.stages import extract_features
from adaattn_core.models.attention import AdaAttention, stacked_key
from tests.helpers.small_models import SMALL, SMALL_VIDEO, picture, small_model

MODEL = small_model()
CONTENT, STYLE = (extract_features(MODEL.encoder, picture(*size)) for size in ((64, 96), (48, 80)))


@pytest.mark.parametrize(
    ("config", "level"),
    [
        (SMALL, "relu3_1"),
        (SMALL, "relu4_1"),
        (SMALL, "relu5_1"),
        (SMALL_VIDEO, "relu3_1"),
        (replace(SMALL, logit_scale=20.0), "relu4_1"),
    ],
)
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_weights_are_those_that_paint(config: ModelConfig, level: str, temperature: float) -> None:
    """The mean that the attention gives a position is the style's values, weighed with the map."""
    model = small_model(config=config)
    content, style = extract_features(model.encoder, picture(64, 96)), extract_features(model.encoder, picture(48, 80))
    attention = model.fusion.attention[level]
    assert isinstance(attention, AdaAttention)
    encoded = attention.encode_style(stacked_key(style.as_dict(), level), style.as_dict()[level])
    key = stacked_key(content.as_dict(), level)
    mean, _ = attention.statistics(
        attention.query(key), (key.shape[-2], key.shape[-1]), encoded, temperature=temperature
    )
    rows, columns = mean.shape[-2:]
    for row, column in ((0, 0), (rows - 1, columns - 1), (1, 2)):
        point = ((column + 0.5) / columns, (row + 0.5) / rows)
        weights = attention_map(model.fusion, content, style, point, level, temperature)
        assert weights.shape[-2:] == style.as_dict()[level].shape[-2:]
        torch.testing.assert_close(weights.sum(), torch.tensor(1.0), rtol=0, atol=1e-4)
        seen = weights.flatten() @ encoded.value[0]
        torch.testing.assert_close(seen, mean[0, :, row, column], rtol=1e-4, atol=1e-4)


def test_the_edges_belong_to_the_picture() -> None:
    corners = [attention_map(MODEL.fusion, CONTENT, STYLE, point, "relu3_1") for point in ((1.0, 1.0), (0.999, 0.999))]
    assert torch.equal(*corners)


def test_a_point_belongs_to_the_position_whose_pixels_hold_it() -> None:
    """Of 33 pixels the last position of relu5_1 holds the last one alone: 0.7 is pixel 23, in the second position."""
    content = extract_features(MODEL.encoder, picture(33, 33))
    inside, same, last = (
        attention_map(MODEL.fusion, content, STYLE, (place, 0.0), "relu5_1") for place in (0.55, 0.7, 0.99)
    )
    assert torch.equal(inside, same)
    assert not torch.equal(inside, last)


def test_one_style_for_a_batch_of_contents() -> None:
    contents = extract_features(MODEL.encoder, picture(64, 96, batch=3))
    maps = attention_map(MODEL.fusion, contents, STYLE, (0.5, 0.5), "relu4_1")
    one = extract_features(MODEL.encoder, contents.picture[1:2])
    assert maps.shape == (3, 6, 10)
    torch.testing.assert_close(maps[1:2], attention_map(MODEL.fusion, one, STYLE, (0.5, 0.5), "relu4_1"))


def heat(*values: float) -> Tensor:
    return torch.tensor([[values]])


def test_the_largest_weight_is_brightest_and_the_smallest_darkest() -> None:
    painted = overlay_heatmap(heat(0.2, 0.3, 0.4), picture(10, 30), opacity=1.0)
    assert painted.shape == (1, 3, 10, 30)
    assert painted[0, :, 0, 0].tolist() == pytest.approx(INFERNO[0])
    assert painted[0, :, 0, 29].tolist() == pytest.approx(INFERNO[-1])
    assert bool((painted.mean(dim=1)[0, 0].diff() >= 0).all())


def test_shades_are_in_proportion_where_a_quarter_is_lit_already() -> None:
    """The mean is 1/4, so the power is 1; and the same above a floor that all have."""
    wanted = heat(0.0, 0.0, 0.5, 0.0, 0.0, 1.0)
    for weights in (wanted, 0.1 + 0.2 * wanted):
        torch.testing.assert_close(to_brightness(weights), wanted)


def spread(sharpness: float) -> Tensor:
    """Attention over 64 x 64 normal logits: its largest is 1.5 times its mean at 0.1, and 1200 times at 3."""
    logits = torch.randn(64 * 64, generator=torch.Generator().manual_seed(0))
    return (sharpness * logits).softmax(dim=0).reshape(1, 64, 64)


@pytest.mark.parametrize("sharpness", [0.1, 0.3, 1.0, 3.0])
def test_a_map_can_be_read_whether_attention_is_even_or_peaked(sharpness: float) -> None:
    """Most of it is dark, and the best hundredth stands out from it, not the best position alone."""
    weights = spread(sharpness)
    shown = to_brightness(weights)
    order = weights.flatten().argsort()
    assert bool((shown.flatten()[order].diff() >= 0).all())
    assert shown.min() == 0 and shown.max() == pytest.approx(1)
    assert shown.mean() < 0.3
    assert shown.flatten()[order[-41:-1]].mean() > shown.median() + 0.3


def test_even_attention_is_evenly_dark() -> None:
    """No noise out of rounding: a thousandth up or down is a hundredth of a shade at most."""
    assert to_brightness(torch.full((1, 9, 9), 1 / 81)).max() == 0
    noise = torch.rand(1, 9, 9, generator=torch.Generator().manual_seed(0))
    assert to_brightness(1 / 81 * (1 + 0.001 * noise)).max() <= 0.01


def test_each_map_has_its_own_scale() -> None:
    one, other = spread(0.3), spread(3.0)
    both = to_brightness(torch.cat([one, other]))
    torch.testing.assert_close(both, torch.cat([to_brightness(one), to_brightness(other)]))


def test_without_opacity_it_is_the_picture_in_grey() -> None:
    style = picture(10, 30)
    painted = overlay_heatmap(heat(0.0, 1.0), style, opacity=0.0)
    torch.testing.assert_close(painted, style.mean(dim=1, keepdim=True).expand(1, 3, 10, 30))


def test_no_weights_at_all_are_dark() -> None:
    assert overlay_heatmap(heat(0.0, 0.0), picture(10, 30), opacity=1.0).max() < 0.1


ERRORS: dict[str, tuple[Callable[[], object], str]] = {
    "level": (
        lambda: attention_map(MODEL.fusion, CONTENT, STYLE, (0.5, 0.5), "relu2_1"),
        "level is 'relu2_1'; this model's are relu3_1, relu4_1, relu5_1",
    ),
    "point": (
        lambda: attention_map(MODEL.fusion, CONTENT, STYLE, (0.5, 1.5), "relu3_1"),
        "the point's y is 1.5; it must be between 0 and 1",
    ),
    "batch": (
        lambda: attention_map(
            MODEL.fusion, CONTENT, extract_features(MODEL.encoder, picture(48, 80, batch=2)), (0.5, 0.5), "relu3_1"
        ),
        "the style has 2 pictures and the content 1; give 1 style",
    ),
    "opacity": (lambda: overlay_heatmap(heat(1.0), picture(10, 30), 2.0), "opacity is 2.0; it must be between 0 and 1"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_say_what_came_and_what_is_needed(name: str) -> None:
    call, text = ERRORS[name]
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        call()
