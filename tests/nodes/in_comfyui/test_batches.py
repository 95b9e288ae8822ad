"""Batches of contents and styles in ComfyUI: which results come, and in which order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from adaattn_core import load_model, stylize
from tests.helpers.comparison import assert_same
from tests.helpers.node_images import CONTENT, LEFT, OTHER, STYLE, image, pixels
from tests.helpers.small_models import picture

CONTENTS, STYLES = picture(48, 72, batch=2), picture(45, 34, batch=3, seed=1)

Run = Callable[..., Any]
Paint = Callable[..., Tensor]


@pytest.fixture(params=["one node", "separate nodes"])
def paint(request: pytest.FixtureRequest, run: Run, parts: tuple[Any, Any, Any]) -> Paint:
    """Contents and styles -> results, (B, 3, H, W)."""

    def separate(contents: Tensor, styles: Tensor, **options: Any) -> Tensor:
        features = [run("ExtractFeatures", encoder=parts[0], image=image(one)) for one in (contents, styles)]
        fused, _ = run("Apply", attention=parts[1], content=features[0], style=features[1], strength=1.0, **options)
        return pixels(run("Decode", decoder=parts[2], fused=fused))

    def one(contents: Tensor, styles: Tensor, **options: Any) -> Tensor:
        inputs = {"content": image(contents), "style": image(styles), "strength": 1.0, **options}
        return pixels(run("Stylize", model_name="built-in", **inputs))

    return one if request.param == "one node" else separate


def wanted(contents: Tensor, styles: Tensor) -> Tensor:
    """Each content in each style, one call of the library for each."""
    model = load_model("compact-0.1")
    return torch.cat([stylize(model, one[None], other[None]) for one in contents for other in styles])


def test_one_content_is_painted_in_each_style(paint: Paint) -> None:
    assert_same(paint(CONTENTS[:1], STYLES), wanted(CONTENTS[:1], STYLES))


def test_each_content_is_painted_in_each_style_where_that_is_switched_on(paint: Paint) -> None:
    assert_same(paint(CONTENTS, STYLES, every_style=True), wanted(CONTENTS, STYLES))


def test_the_mask_of_a_content_counts_for_each_of_its_styles(paint: Paint) -> None:
    result = paint(CONTENTS, STYLES[:2], every_style=True, content_mask=torch.stack([LEFT, 1 - LEFT]))
    contents = CONTENTS.repeat_interleave(2, dim=0)
    assert torch.equal(result[:2, ..., 36:], contents[:2, ..., 36:])
    assert torch.equal(result[2:, ..., :36], contents[2:, ..., :36])
    assert_same(result[:2, ..., :36], wanted(CONTENTS[:1], STYLES[:2])[..., :36])


def test_a_batch_of_styles_is_mixed_with_a_single_one(run: Run) -> None:
    result = run(
        "Stylize", model_name="built-in", content=image(CONTENT), style=image(STYLES[:2]), style_2=image(OTHER),
        strength=1.0,
    )  # fmt: skip
    model = load_model("compact-0.1")
    assert_same(pixels(result), torch.cat([stylize(model, CONTENT, [one[None], OTHER]) for one in STYLES[:2]]))


def test_a_mix_of_one_painting_with_several(run: Run, parts: tuple[Any, Any, Any]) -> None:
    content, several, single = (
        run("ExtractFeatures", encoder=parts[0], image=image(one)) for one in (CONTENT, STYLES[:2], STYLE)
    )
    fused = [
        run("Apply", attention=parts[1], content=content, style=style, strength=0.7)[0] for style in (single, several)
    ]
    mixed = pixels(run("Decode", decoder=parts[2], fused=run("MixStyles", fused_1=fused[0], fused_2=fused[1])))
    model = load_model("compact-0.1")
    assert_same(mixed, torch.cat([stylize(model, CONTENT, [STYLE, one[None]], strength=0.7) for one in STYLES[:2]]))


def test_one_picture_is_refined_in_each_style(run: Run) -> None:
    both = run("Refine", image=image(CONTENT), content=image(CONTENT), style=image(STYLES[:2]), steps=1)
    for index in (0, 1):
        alone = run("Refine", image=image(CONTENT), content=image(CONTENT), style=image(STYLES[index][None]), steps=1)
        assert_same(pixels(both)[index][None], pixels(alone))
