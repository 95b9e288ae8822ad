"""Regions of a content in styles of their own: `region_masks` of `stylize`."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from adaattn_core import StyleTransferModel, load_model, stylize
from adaattn_core.ops.masks import feather_mask, nearest_position, region_shares
from adaattn_core.runtime.remarks import collected_remarks
from tests.helpers.comparison import assert_same, difference
from tests.helpers.small_models import picture, small_model

CONTENT = picture(64, 96)
STYLES = [picture(45, 34, seed=1), picture(32, 48, seed=2), picture(40, 40, seed=3)]


def columns(start: int, stop: int, width: int = 96, height: int = 64) -> Tensor:
    """(1, 1, height, width): 1 in these columns."""
    place = torch.arange(width)
    return ((place >= start) & (place < stop)).float().expand(1, 1, height, width)


def flat(color: tuple[float, float, float], width: int = 64) -> Tensor:
    return torch.tensor(color)[None, :, None, None].expand(1, 3, 64, width).contiguous()


def test_each_region_has_its_style_and_the_content_stays_outside(model: StyleTransferModel) -> None:
    """Far from the other region; between the two, the content bit for bit."""
    result = stylize(model, CONTENT, STYLES[:2], region_masks=[columns(0, 40), columns(72, 96)])
    assert_same(result[..., :8], stylize(model, CONTENT, STYLES[0])[..., :8])
    assert torch.equal(result[..., 40:72], CONTENT[..., 40:72])
    assert difference(result[..., 72:], stylize(model, CONTENT, STYLES[0])[..., 72:]) > 1


def test_a_full_region_is_the_style_without_a_mask(model: StyleTransferModel) -> None:
    result = stylize(model, CONTENT, STYLES[0], region_masks=[torch.ones(64, 96)])
    assert_same(result, stylize(model, CONTENT, STYLES[0]))


def test_a_region_alone_is_a_content_mask(model: StyleTransferModel) -> None:
    mask = feather_mask(columns(0, 48), 6)
    result = stylize(model, CONTENT, STYLES[0], region_masks=[mask])
    assert_same(result, stylize(model, CONTENT, STYLES[0], content_mask=mask))


def test_overlapping_regions_mix_by_weight(model: StyleTransferModel) -> None:
    whole = torch.ones(64, 96)
    result = stylize(model, CONTENT, STYLES[:2], style_weights=[3, 1], region_masks=[whole, whole])
    assert_same(result, stylize(model, CONTENT, STYLES[:2], style_weights=[3, 1]))


def test_a_style_without_a_mask_paints_what_the_others_leave(model: StyleTransferModel) -> None:
    mask = feather_mask(columns(0, 48), 6)
    rest = stylize(model, CONTENT, STYLES[:2], region_masks=[mask, None])
    assert_same(rest, stylize(model, CONTENT, STYLES[:2], region_masks=[mask, 1 - mask]))


def test_a_region_of_weight_0_counts_as_not_drawn(model: StyleTransferModel) -> None:
    result = stylize(model, CONTENT, STYLES[:2], style_weights=[0, 1], region_masks=[columns(0, 48), None])
    assert_same(result, stylize(model, CONTENT, STYLES[1]))


def test_empty_regions_give_the_content_and_a_notice(model: StyleTransferModel) -> None:
    empty = torch.zeros(64, 96)
    with collected_remarks() as notes:
        result = stylize(model, CONTENT, STYLES[:2], region_masks=[empty, empty])
    assert torch.equal(result, CONTENT)
    assert [note.text for note in notes] == [
        "every region mask is empty, so nothing is painted; draw the regions in white"
    ]


def test_one_empty_region_is_left_out_with_a_notice(model: StyleTransferModel) -> None:
    left = columns(0, 48)
    with collected_remarks() as notes:
        result = stylize(model, CONTENT, STYLES[:2], region_masks=[left, torch.zeros(64, 96)])
    assert_same(result, stylize(model, CONTENT, STYLES[0], region_masks=[left]))
    assert [note.text for note in notes] == [
        "region 2 is empty, so its style is painted nowhere; draw the region in white"
    ]


def test_a_style_that_the_masks_leave_nothing_is_left_out_with_a_notice(model: StyleTransferModel) -> None:
    whole = torch.ones(64, 96)
    with collected_remarks() as notes:
        result = stylize(model, CONTENT, STYLES[:2], region_masks=[whole, None])
    assert_same(result, stylize(model, CONTENT, STYLES[0]))
    assert [note.text for note in notes] == [
        "the region masks cover the whole content, so that a style without one is painted nowhere"
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_region_of_one_pixel_changes_that_pixel_alone(dtype: torch.dtype) -> None:
    model, mask = small_model().set_precision(dtype), torch.zeros(1, 1, 64, 96)
    mask[..., 35, 21] = 1
    result = stylize(model, CONTENT, STYLES[:2], region_masks=[mask, columns(80, 96)])
    assert result.isfinite().all()
    changed = (result != CONTENT).any(dim=1)[0, :, :80].nonzero().tolist()
    assert changed == [[35, 21]]


def test_masks_of_a_batch_belong_to_their_contents(model: StyleTransferModel) -> None:
    contents, masks = torch.cat([CONTENT, CONTENT]), torch.cat([columns(0, 32), columns(64, 96)])
    result = stylize(model, contents, STYLES[:2], region_masks=[masks, columns(40, 48)])
    for index in (0, 1):
        one = [masks[index : index + 1], columns(40, 48)]
        alone = stylize(model, CONTENT, STYLES[:2], region_masks=one)
        assert_same(result[index : index + 1], alone)


def test_regions_hold_in_every_pass_of_a_stroke_size(model: StyleTransferModel) -> None:
    result = stylize(model, CONTENT, STYLES[:1], stroke_size=8, region_masks=[columns(0, 48)])
    wanted = stylize(model, CONTENT, STYLES[:1], stroke_size=8, content_mask=columns(0, 48))
    assert_same(result, wanted)


def test_a_content_mask_limits_the_regions(model: StyleTransferModel) -> None:
    mask = (torch.arange(64) < 32).float()[:, None].expand(64, 96)
    result = stylize(model, CONTENT, STYLES[:1], region_masks=[columns(0, 48)], content_mask=mask)
    assert torch.equal(result[..., 32:, :], CONTENT[..., 32:, :]) and torch.equal(result[..., 48:], CONTENT[..., 48:])


@pytest.mark.parametrize("name", ["compact", "base"])
def test_a_border_to_the_content_shows_no_halo(name: str) -> None:
    """Flat colours: the 16 pixels beside the border against the inside, within 3/255."""
    styles = [flat((0.8, 0.2, 0.2)), flat((0.2, 0.3, 0.8))]
    masks = [columns(0, 64, 192), columns(128, 192, 192)]
    result = stylize(load_model(name), flat((0.5, 0.6, 0.4), 192), styles, region_masks=masks)
    inside = result[..., 20:40].mean(dim=(2, 3), keepdim=True)
    assert float((result[..., 48:64] - inside).abs().max()) * 255 < 3


@pytest.mark.parametrize("feather", [0, 8, 16])
def test_a_border_between_regions_is_no_darker_and_no_brighter_than_both(feather: int) -> None:
    """Flat red beside flat blue in the compact model: brightness within 3/255 of what lies between the insides."""
    styles = [flat((0.8, 0.2, 0.2)), flat((0.2, 0.3, 0.8))]
    left = feather_mask(columns(0, 128, 256), feather)
    result = stylize(load_model("compact"), flat((0.5, 0.6, 0.4), 256), styles, region_masks=[left, 1 - left])
    bright = (result * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(dim=1)[0, 20:44] * 255
    insides = torch.cat([bright[:, 30:60], bright[:, 196:226]], dim=1)
    beside = bright[:, 128 - 16 - feather : 128 + 16 + feather]
    assert insides.min() - 3 < beside.min() and beside.max() < insides.max() + 3


def test_shares_sum_to_one_and_continue_outside_the_masks() -> None:
    masks = [columns(0, 2, 8, 1), columns(6, 8, 8, 1)]
    first, second = region_shares(masks, [1, 3])
    assert first.flatten().tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert torch.equal(second, 1 - first)
    overlapping = region_shares([torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 2)], [1, 3])
    assert [share.flatten().tolist() for share in overlapping] == [[0.25, 0.25], [0.75, 0.75]]


def test_the_nearest_position_is_the_nearest_of_all() -> None:
    inside = torch.rand(2, 7, 9, generator=torch.Generator().manual_seed(0)) > 0.9
    found = nearest_position(inside)
    for item in (0, 1):
        places = inside[item].nonzero().tolist()
        for row in range(7):
            for column in range(9):
                y, x = divmod(int(found[item, row, column]), 9)
                assert inside[item, y, x]
                assert abs(y - row) + abs(x - column) == min(abs(b - row) + abs(a - column) for b, a in places)


ERRORS: dict[str, tuple[dict[str, Any], str]] = {
    "count": ({"region_masks": [torch.ones(64, 96)]}, "1 region mask came for 2 styles; give one (or None) for each"),
    "refine": (
        {"region_masks": [torch.ones(64, 96), None], "refine_steps": 1},
        "refine_steps came with region_masks, which refinement does not know. Give refine_steps=0, or no region masks.",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_say_what_came_and_what_is_needed(name: str, model: StyleTransferModel) -> None:
    options, text = ERRORS[name]
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        stylize(model, CONTENT, STYLES[:2], **options)
