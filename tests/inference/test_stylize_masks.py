"""Content masks and style masks of `stylize`, on small random models."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from adaattn_core import StyleTransferModel, encode_style, stylize
from adaattn_core.models.fusion import StyleFeatures
from tests.helpers.comparison import assert_same, difference
from tests.helpers.small_models import picture
from tests.helpers.stylize_pictures import CONTENT, OTHER, STYLE, left_half

painting_module = sys.modules["adaattn_core.inference.stages"]


# ---------------------------------------------------------------- content masks


def disc(height: int, width: int) -> Tensor:
    """(1, 1, height, width): 1 inside, 0 outside, a slope of 5 pixels between."""
    y, x = torch.meshgrid(torch.arange(height) - height / 2, torch.arange(width) - width / 2, indexing="ij")
    return ((15 - (x**2 + y**2).sqrt()) / 5).clamp(0, 1)[None, None]


@pytest.mark.parametrize("options", [{}, {"strength": 0.5}, {"keep_color": True}])
def test_a_content_mask_chooses_between_content_and_result(model: StyleTransferModel, options: dict[str, Any]) -> None:
    mask, full = disc(37, 50), stylize(model, CONTENT, STYLE, **options)
    result = stylize(model, CONTENT, STYLE, content_mask=mask, **options)
    inside, outside = (mask == 1).expand_as(full), (mask == 0).expand_as(full)
    feather = ~inside & ~outside
    assert inside.any() and outside.any() and feather.any()
    assert torch.equal(result[outside], CONTENT[outside])
    assert torch.equal(result[inside], full[inside])
    blend = mask * full + (1 - mask) * CONTENT
    torch.testing.assert_close(result[feather], blend[feather], rtol=0, atol=1e-6)


def test_masks_of_one_value(model: StyleTransferModel) -> None:
    full = stylize(model, CONTENT, STYLE)
    assert torch.equal(stylize(model, CONTENT, STYLE, content_mask=torch.zeros(37, 50)), CONTENT)
    assert torch.equal(stylize(model, CONTENT, STYLE, content_mask=torch.ones(37, 50)), full)


@pytest.mark.parametrize("shape", [(37, 50), (1, 37, 50), (1, 1, 37, 50)])
def test_masks_of_any_rank(model: StyleTransferModel, shape: tuple[int, ...]) -> None:
    wanted = stylize(model, CONTENT, STYLE, content_mask=disc(37, 50))
    assert torch.equal(stylize(model, CONTENT, STYLE, content_mask=disc(37, 50).reshape(shape)), wanted)


def test_a_mask_is_resized_to_its_picture(model: StyleTransferModel) -> None:
    """Left half 0, right half 1, at twice the size: exact away from the border between them."""
    mask = (torch.arange(100) >= 50).float().expand(74, 100)
    result, full = stylize(model, CONTENT, STYLE, content_mask=mask), stylize(model, CONTENT, STYLE)
    assert torch.equal(result[..., :24], CONTENT[..., :24])
    assert_same(result[..., 26:], full[..., 26:])


def test_one_mask_for_each_content(model: StyleTransferModel) -> None:
    content = torch.cat([CONTENT, CONTENT])
    mask = torch.stack([torch.zeros(1, 37, 50), torch.ones(1, 37, 50)])
    result = stylize(model, content, STYLE, content_mask=mask)
    assert torch.equal(result[:1], CONTENT)
    assert_same(result[1:], stylize(model, CONTENT, STYLE))


# ---------------------------------------------------------------- style masks


def test_a_white_style_mask_is_no_mask(model: StyleTransferModel) -> None:
    result = stylize(model, CONTENT, STYLE, style_masks=[torch.ones(45, 34)])
    assert_same(result, stylize(model, CONTENT, STYLE))


def painted_over(style: StyleFeatures) -> StyleFeatures:
    """Other keys and values wherever the mask is False."""
    changed = {}
    for level, (key, value, mask, _) in style.items():
        assert mask is not None
        hidden = ~mask[..., None]
        changed[level] = style[level]._replace(
            key=torch.where(hidden, -key, key), value=torch.where(hidden, 3 - value, value)
        )
    return changed


def test_what_is_masked_out_of_a_style_has_no_effect(model: StyleTransferModel) -> None:
    style = encode_style(model, STYLE, mask=left_half(45, 34))
    result = stylize(model, CONTENT, style)
    assert_same(stylize(model, CONTENT, painted_over(style)), result)
    assert torch.equal(stylize(model, CONTENT, STYLE, style_masks=[left_half(45, 34)]), result)
    assert difference(result, stylize(model, CONTENT, STYLE)) > 0.5
    unmasked = {level: one._replace(mask=None) for level, one in painted_over(style).items()}
    assert difference(result, stylize(model, CONTENT, unmasked)) > 0.5


def test_masks_belong_to_their_styles(model: StyleTransferModel) -> None:
    mask = left_half(32, 48)
    mixed = stylize(model, CONTENT, [STYLE, OTHER], style_masks=[None, mask])
    assert torch.equal(
        mixed, stylize(model, CONTENT, [encode_style(model, STYLE), encode_style(model, OTHER, mask=mask)])
    )
    assert difference(mixed, stylize(model, CONTENT, [STYLE, OTHER])) > 0.2


@pytest.mark.parametrize("attention", ["exact", "sampled"])
def test_a_dot_is_enough_of_a_style_mask(
    model: StyleTransferModel, attention: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Smaller than a position of relu5_1, between all that nearest resizing looks at."""
    monkeypatch.setattr(painting_module, "SAMPLED_POSITIONS", 4)
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 35, 21] = 1
    style = encode_style(model, picture(64, 64), mask=mask, attention=attention)
    assert all(one.mask is not None and one.mask.sum() == 1 for one in style.values())
    assert stylize(model, CONTENT, style).isfinite().all()
