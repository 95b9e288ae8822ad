"""Regions of a content in styles of their own: AdaAttN Style Region and the input regions of AdaAttN Stylize."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from adaattn_core import load_model, stylize
from adaattn_core.ops.masks import feather_mask
from tests.helpers.comfy_pack import pack_module
from tests.helpers.comparison import assert_same
from tests.helpers.node_images import CONTENT, LEFT, OTHER, STYLE, image, pixels
from tests.helpers.small_models import picture

Run = Callable[..., Any]
THIRD = picture(40, 40, seed=3)
RIGHT = (torch.arange(72) >= 60).float().expand(48, 72)
BLACK = torch.zeros(48, 72)
INPUTS = {"model_name": "built-in", "content": image(CONTENT), "style": image(STYLE), "strength": 1.0}


def region(run: Run, style: Tensor, mask: Tensor, **options: Any) -> Any:
    return run("StyleRegion", style=image(style), mask=mask, **options)


def notices(host: SimpleNamespace, **options: Any) -> tuple[Tensor, list[str]]:
    """(B, 3, H, W) and what AdaAttN Stylize says."""
    output = host.nodes["AdaAttN_Stylize"].execute(**{**INPUTS, **options})
    said: list[str] = (output.ui or {}).get(pack_module("nodes.outcome").NOTICES, [])
    return pixels(output.args[0]), said


def wanted(styles: list[Tensor], masks: list[Tensor | None], **options: Any) -> Tensor:
    return stylize(load_model("compact-0.1"), CONTENT, styles, region_masks=masks, **options)


# ---------------------------------------------------------------- results


def test_the_style_of_the_node_paints_what_the_regions_leave(host: SimpleNamespace, run: Run) -> None:
    result, said = notices(host, regions=region(run, OTHER, LEFT))
    assert_same(result, wanted([STYLE, OTHER], [None, LEFT]))
    assert said == []


def test_regions_add_up_over_several_nodes(run: Run) -> None:
    """In the order of the nodes, so that messages count them as a person does."""
    one = region(run, OTHER, LEFT)
    both = region(run, THIRD, RIGHT, previous=one)
    assert [len(regions) for regions in (one, both)] == [1, 2]
    result = pixels(run("Stylize", **INPUTS, regions=both))
    assert_same(result, wanted([STYLE, OTHER, THIRD], [None, LEFT, RIGHT]))


def test_the_content_mask_is_the_region_of_the_nodes_own_styles(run: Run) -> None:
    """And the content stays outside all masks, exactly."""
    inputs = {**INPUTS, "style_2": image(THIRD), "style_2_weight": 3.0}
    result = pixels(run("Stylize", **inputs, content_mask=RIGHT, regions=region(run, OTHER, LEFT)))
    assert_same(result, wanted([STYLE, THIRD, OTHER], [RIGHT, RIGHT, LEFT], style_weights=[1, 3, 1]))
    assert torch.equal(result[..., 36:60], CONTENT[..., 36:60])


def test_weight_0_of_the_nodes_style_leaves_the_content_outside_the_regions(host: SimpleNamespace, run: Run) -> None:
    result, said = notices(host, style_weight=0.0, regions=region(run, OTHER, LEFT))
    assert_same(result, wanted([OTHER], [LEFT]))
    assert torch.equal(result[..., 36:], CONTENT[..., 36:]) and said == []


def test_a_region_is_inverted_and_feathered(run: Run) -> None:
    result = pixels(run("Stylize", **INPUTS, regions=region(run, OTHER, LEFT, mask_invert=True, mask_feather=6)))
    soft = feather_mask(1 - LEFT[None, None], 6)
    assert_same(result, wanted([STYLE, OTHER], [None, soft]))


def test_a_part_of_the_style_and_a_weight_belong_to_the_region(run: Run) -> None:
    half = (torch.arange(48) < 24).float().expand(32, 48)
    result = run(
        "Stylize", **INPUTS, regions=region(run, OTHER, 1 - BLACK, style_mask=half, weight=3.0), content_mask=LEFT
    )
    expected = wanted([STYLE, OTHER], [LEFT, 1 - BLACK], style_masks=[None, half], style_weights=[1, 3])
    assert_same(pixels(result), expected)


def test_each_content_of_a_batch_has_its_mask(run: Run) -> None:
    contents = torch.cat([CONTENT, CONTENT])
    result = pixels(
        run("Stylize", **{**INPUTS, "content": image(contents)}, regions=region(run, OTHER, torch.stack([LEFT, RIGHT])))
    )
    for one, mask in zip(result[:, None], (LEFT, RIGHT), strict=True):
        assert_same(one, wanted([STYLE, OTHER], [None, mask]))


def test_a_batch_of_styles_in_a_region_gives_one_result_for_each(run: Run) -> None:
    result = pixels(run("Stylize", **INPUTS, regions=region(run, torch.cat([THIRD, THIRD.flip(-1)]), LEFT)))
    for one, style in zip(result[:, None], (THIRD, THIRD.flip(-1)), strict=True):
        assert_same(one, wanted([STYLE, style], [None, LEFT]))


def test_hidden_colours_stay_where_nothing_is_painted(run: Run) -> None:
    """Of a content with an opacity: as outside a content mask."""
    clear = torch.cat([image(CONTENT), torch.zeros(1, 48, 72, 1)], dim=-1)
    inputs = {**INPUTS, "content": clear, "style_weight": 0.0}
    result = run("Stylize", **inputs, regions=region(run, OTHER, LEFT))
    assert torch.equal(result[..., 36:, :], clear[..., 36:, :])


def test_the_preview_of_a_large_picture_shows_the_regions(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    stylize_node, shown = pack_module("nodes.stylize"), []
    monkeypatch.setattr(stylize_node, "PREVIEW_ABOVE", 100)
    monkeypatch.setattr(stylize_node, "PREVIEW_SIZE", 20)
    monkeypatch.setattr(pack_module("nodes.bridge").NodeProgress, "show", lambda _self, one: shown.append(one))
    run("Stylize", **{**INPUTS, "style_weight": 0.0}, regions=region(run, OTHER, LEFT))
    small = stylize_node.reduced(CONTENT, 20)
    assert shown[0].shape == small.shape
    assert_same(shown[0][..., 16:], small[..., 16:])
    assert float((shown[0] - small)[..., :14].abs().mean()) > 1 / 255


def test_colours_are_kept_without_new_attention(run: Run, work: Counter[str]) -> None:
    pack_module("nodes.bridge")._models.clear()
    regions = region(run, OTHER, LEFT)
    run("Stylize", **INPUTS, regions=regions)
    work.clear()
    run("Stylize", **INPUTS, regions=regions, keep_color=True)
    assert work == {}


# ---------------------------------------------------------------- what is said

EMPTY = (
    "the mask of region 2 is empty: nothing is painted there. Paint some of it white, change invert or threshold, or "
    "disconnect it."
)


@pytest.mark.parametrize("mask", [BLACK, torch.zeros(1, 64, 64)], ids=["black", "nothing drawn in Load Image"])
def test_an_empty_region_is_left_out_with_a_notice(host: SimpleNamespace, run: Run, mask: Tensor) -> None:
    result, said = notices(host, regions=region(run, THIRD, mask, previous=region(run, OTHER, LEFT)))
    assert_same(result, wanted([STYLE, OTHER], [None, LEFT]))
    assert said == [EMPTY]


def test_a_content_that_nothing_paints_comes_back_with_notices(host: SimpleNamespace, run: Run) -> None:
    regions = region(run, THIRD, BLACK, previous=region(run, OTHER, BLACK))
    result, said = notices(host, content_mask=BLACK, regions=regions)
    assert torch.equal(result, CONTENT)
    assert [line.partition(" is empty")[0] for line in said] == [
        "the content mask", "the mask of region 1", "the mask of region 2",
    ]  # fmt: skip


def test_a_style_that_the_regions_cover_is_left_out_with_a_notice(host: SimpleNamespace, run: Run) -> None:
    result, said = notices(host, regions=region(run, OTHER, 1 - BLACK))
    assert_same(result, wanted([OTHER], [1 - BLACK]))
    assert said == [
        "the regions cover the whole content, so that the style of AdaAttN Stylize is painted nowhere; set its weight "
        "to 0 if that is what you want"
    ]


ERRORS: dict[str, tuple[dict[str, Any], str]] = {
    "refinement": (
        {"refine_steps": 60},
        "refine steps is 60 and regions are connected, which refinement does not know. Set refine steps to 0, or "
        "disconnect regions.",
    ),
    "weights": ({"style_weight": -1.0}, "style weights are [-1.0, 1.0]; "),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_say_what_came_and_what_is_needed(run: Run, name: str) -> None:
    options, text = ERRORS[name]
    with pytest.raises(ValueError, match=f"^{re.escape(text)}"):
        run("Stylize", **INPUTS, **options, regions=region(run, OTHER, LEFT))


def test_a_mask_too_many_is_refused(run: Run) -> None:
    with pytest.raises(ValueError, match="^2 masks for 1 picture: give 1"):
        run("Stylize", **INPUTS, regions=region(run, OTHER, torch.stack([LEFT, RIGHT])))


def test_a_style_that_is_no_picture_is_refused_by_the_region(run: Run) -> None:
    with pytest.raises(ValueError, match="^the style image is"):
        run("StyleRegion", style=torch.zeros(1, 8, 8, 2), mask=LEFT)
