"""Strokes of one size relative to the picture: passes from coarse to fine, against passes run by hand."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from adaattn_core import StyleTransferModel, encode_style, refine, stylize
from adaattn_core.inference.coarse_to_fine import MAX_STROKE_SIZE, MAX_STYLE_SIDE, plan_passes
from adaattn_core.inference.stylize import KeptStyles
from adaattn_core.ops.resize import resize_image
from tests.helpers.comparison import assert_same, difference
from tests.helpers.small_models import picture, small_model
from tests.helpers.stylize_pictures import STYLE, left_half

CONTENT, LARGE_STYLE = picture(128, 96 * 2, seed=3), picture(140, 100, seed=4)
TWO = 8.0
"""The stroke size with which CONTENT is painted in two passes: at 64 x 96 and at 128 x 192 pixels."""

stylize_module = sys.modules["adaattn_core.inference.stylize"]


def by_hand(model: StyleTransferModel, content: Tensor, style: Tensor) -> Tensor:
    """CONTENT after two passes at full strength; styles with a short side of 64 pixels or more."""
    small = resize_image(content, size=(64, 96))
    change = stylize(model, small, resize_image(style, short_side=64)) - small
    start = (content + F.interpolate(change, scale_factor=2, mode="bicubic")).clamp(0, 1)
    return stylize(model, start, resize_image(style, short_side=min(128, *style.shape[-2:])))


@pytest.mark.parametrize("stroke_size", [0.25, 1, 2, 8])
@pytest.mark.parametrize("short_side", [16, 300, 700, 1000, 2048, 3000, 9000])
def test_passes_end_at_the_pictures_size_and_cost_half_as_much_again(short_side: int, stroke_size: float) -> None:
    passes = plan_passes((short_side, 2 * short_side), stroke_size)
    sides = [one.size[0] for one in passes]
    assert passes[-1].size == (short_side, 2 * short_side)
    assert sum(side**2 for side in sides) <= 1.51 * short_side**2
    assert [one.style_side for one in passes] == [min(side, MAX_STYLE_SIDE) for side in sides]
    assert len(sides) == 1 or sides[0] == 512 / stroke_size
    assert len(sides) > 1 or short_side < 1.42 * 512 / stroke_size
    assert all(1.4 < after / before < 2.9 for before, after in zip(sides, sides[1:], strict=False))


def test_the_change_of_a_small_pass_is_repainted_at_full_size(model: StyleTransferModel) -> None:
    result = stylize(model, CONTENT, LARGE_STYLE, stroke_size=TWO)
    assert_same(result, by_hand(model, CONTENT, LARGE_STYLE))
    assert difference(result, stylize(model, CONTENT, LARGE_STYLE)) > 1


def test_a_small_picture_is_painted_once_in_a_style_of_its_size(model: StyleTransferModel) -> None:
    small = picture(60, 70)
    wanted = stylize(model, small, resize_image(LARGE_STYLE, short_side=60))
    assert torch.equal(stylize(model, small, LARGE_STYLE, stroke_size=1), wanted)


def test_a_style_is_not_enlarged(model: StyleTransferModel) -> None:
    small = resize_image(LARGE_STYLE, short_side=40)
    assert torch.equal(stylize(model, picture(60, 70), small, stroke_size=1), stylize(model, picture(60, 70), small))


def test_at_strength_0_it_is_the_content_and_in_between_it_changes_steadily(model: StyleTransferModel) -> None:
    results = [stylize(model, CONTENT, STYLE, stroke_size=TWO, strength=x) for x in (0, 0.01, 0.5, 0.99, 1)]
    assert torch.equal(results[0], CONTENT)
    changes = [difference(result, CONTENT) for result in results]
    assert changes == sorted(changes) and changes[1] < 0.02 * changes[-1] and changes[3] > 0.98 * changes[-1]
    assert 0.3 * changes[-1] < changes[2] < 0.7 * changes[-1]


def test_masks_and_colours_count_for_the_content_itself(model: StyleTransferModel) -> None:
    """Outside the mask it is the content, exactly, and inside the picture that is painted without a mask."""
    mask = left_half(128, 192)
    painted = stylize(model, CONTENT, STYLE, stroke_size=TWO)
    masked = stylize(model, CONTENT, STYLE, stroke_size=TWO, content_mask=mask)
    assert torch.equal(masked[..., 96:], CONTENT[..., 96:])
    assert_same(masked[..., :96], painted[..., :96])
    grey = CONTENT.mean(dim=1, keepdim=True).expand_as(CONTENT)
    colourless = stylize(model, grey, STYLE, stroke_size=TWO, keep_color=True)
    assert_same(colourless, colourless[:, :1].expand_as(colourless))


def test_a_batch_is_its_items_with_their_styles_and_masks(
    model: StyleTransferModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents, styles = torch.cat([CONTENT, 1 - CONTENT]), torch.cat([LARGE_STYLE, 1 - LARGE_STYLE])
    other, mask = picture(90, 110, seed=8), torch.rand(2, 1, 128, 192, generator=torch.manual_seed(1)).round()
    style_mask = left_half(140, 100)
    options: dict[str, Any] = {
        "stroke_size": TWO, "style_weights": [2, 1], "temperature": 2.0, "style_masks": [style_mask, None],
        "strength": 0.8, "max_memory_gb": 64,
    }  # fmt: skip
    items = [
        stylize(model, contents[i : i + 1], [styles[i : i + 1], other], content_mask=mask[i : i + 1], **options)
        for i in (0, 1)
    ]
    assert_same(stylize(model, contents, [styles, other], content_mask=mask, **options), torch.cat(items))
    monkeypatch.setattr("adaattn_core.inference.batching.BATCH_PIXELS", 1)
    finished = torch.zeros_like(contents)
    stylize(model, contents, [styles, other], content_mask=mask, on_result=finished.__setitem__, **options)
    assert_same(finished, torch.cat(items))
    assert difference(items[0], stylize(model, CONTENT, [LARGE_STYLE, other], **{**options, "style_masks": None})) > 0.1


def test_refinement_follows_the_last_pass_and_progress_rises(
    model: StyleTransferModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = small_model(5).encoder
    monkeypatch.setattr(stylize_module, "load_vgg", lambda normalized: network)
    shares: list[float] = []
    result = stylize(model, CONTENT, LARGE_STYLE, stroke_size=TWO, refine_steps=2, progress=shares.append)
    painted = stylize(model, CONTENT, LARGE_STYLE, stroke_size=TWO)
    assert_same(result, refine(painted, CONTENT, LARGE_STYLE, steps=2, vgg=network))
    assert shares == sorted(shares) and shares[-1] == 1


def test_each_pass_has_the_share_of_its_pixels(model: StyleTransferModel) -> None:
    """The first of two has a quarter of the second's pixels, a fifth of all."""
    shares: list[float] = []
    stylize(model, CONTENT, STYLE, stroke_size=TWO, progress=shares.append)
    assert shares == sorted(shares) and shares[-1] == 1
    assert any(share == pytest.approx(0.2) for share in shares)
    assert min(share for share in shares if share > 0.21) < 0.7


def test_kept_styles_are_encoded_once_for_many_contents(
    model: StyleTransferModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def encoded(model: StyleTransferModel, style: Tensor, **options: Any) -> Any:  # noqa: ANN401
        sizes.append(tuple(style.shape[-2:]))
        return encode_style(model, style, **options)

    monkeypatch.setattr(stylize_module, "encode_style", encoded)
    kept, mask = KeptStyles([LARGE_STYLE]), left_half(140, 100)
    for content in (CONTENT, 1 - CONTENT):
        result = stylize(model, content, kept, style_masks=[mask], stroke_size=TWO)
    assert sizes == [(90, 64), (140, 100)]
    assert torch.equal(result, stylize(model, 1 - CONTENT, LARGE_STYLE, style_masks=[mask], stroke_size=TWO))
    assert difference(result, stylize(model, 1 - CONTENT, kept, stroke_size=TWO)) > 0.1, "a mask is part of the key"


@pytest.mark.parametrize("stroke_size", [-0.5, MAX_STROKE_SIZE + 1, float("nan"), float("inf")])
def test_a_wrong_stroke_size_is_refused(model: StyleTransferModel, stroke_size: float) -> None:
    with pytest.raises(ValueError, match=rf"^stroke_size is {stroke_size}; a number from 0 to 8 is needed: 1 for "):
        stylize(model, CONTENT, STYLE, stroke_size=stroke_size)


def test_an_encoded_style_is_refused(model: StyleTransferModel) -> None:
    with pytest.raises(ValueError, match="^stroke_size needs the style as a picture, and an already encoded style"):
        stylize(model, CONTENT, [STYLE, encode_style(model, STYLE)], stroke_size=1)
