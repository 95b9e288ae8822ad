"""Refinement in ComfyUI: results, batches, masks, progress and cancel."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from adaattn_core import load_model, refine, stylize
from tests.helpers.comfy_pack import pack_module
from tests.helpers.comparison import assert_same
from tests.helpers.node_images import CONTENT, LEFT, OTHER, STYLE, image, pixels
from tests.helpers.small_models import picture


def test_refinement_gives_what_the_library_gives(run: Callable[..., Any]) -> None:
    """Although the host runs nodes in inference mode, without gradients."""
    inputs = {"image": image(OTHER), "content": image(1 - OTHER), "style": image(STYLE)}
    result = run("Refine", **inputs, steps=3, content_weight=2.0, keep_color=True, mask=torch.ones(20, 30))
    with torch.inference_mode(False):
        mask = torch.ones(1, 1, 32, 48)
        wanted = refine(OTHER, 1 - OTHER, STYLE, steps=3, content_weight=2.0, keep_color=True, content_mask=mask)
    assert_same(pixels(result), wanted)
    assert float((wanted - OTHER).abs().mean()) > 1 / 255
    assert torch.equal(run("Refine", **inputs, steps=0), inputs["image"])


def test_refined_batches_pair_up_and_one_content_and_style_serve_all(run: Callable[..., Any]) -> None:
    images, styles = picture(32, 48, batch=2, seed=5), picture(40, 32, batch=2, seed=6)
    shared = run("Refine", image=image(images), content=image(OTHER), style=image(STYLE), steps=2)
    paired = run("Refine", image=image(images), content=image(1 - images), style=image(styles), steps=2)
    for index in range(2):
        one = slice(index, index + 1)
        assert_same(
            shared[one], run("Refine", image=image(images[one]), content=image(OTHER), style=image(STYLE), steps=2)
        )
        inputs = {"image": image(images[one]), "content": image(1 - images[one]), "style": image(styles[one])}
        assert_same(paired[one], run("Refine", **inputs, steps=2))


def test_outside_the_mask_the_refined_picture_is_the_content(run: Callable[..., Any]) -> None:
    inputs = {"image": image(1 - CONTENT), "content": image(CONTENT), "style": image(STYLE), "steps": 1}
    assert torch.equal(pixels(run("Refine", **inputs, mask=LEFT))[..., 36:], CONTENT[..., 36:])


def test_one_node_stylizes_and_refines_with_all_its_settings(run: Callable[..., Any]) -> None:
    result = run(
        "Stylize", model_name="built-in", content=image(CONTENT), style=image(STYLE), strength=0.8, content_mask=LEFT,
        style_mask=torch.ones(45, 34), style_2=image(OTHER), style_2_weight=2.0, temperature=2.0, refine_steps=3,
    )  # fmt: skip
    with torch.inference_mode(False):
        wanted = stylize(
            load_model("compact-0.1"), CONTENT, [STYLE, OTHER], style_weights=[1, 2], strength=0.8, temperature=2.0,
            content_mask=LEFT, refine_steps=3,
        )  # fmt: skip
    assert float((pixels(result) - wanted).abs().mean()) < 0.2 / 255
    assert torch.equal(pixels(result)[..., 36:], CONTENT[..., 36:])


def test_each_step_is_shown_and_cancel_ends_the_refinement(host: SimpleNamespace, run: Callable[..., Any]) -> None:
    shown: list[Any] = []

    def watch(value: int, total: int, preview: Any, **_: object) -> None:
        shown.append((value, preview))
        if len([entry for entry in shown if entry[1] is not None]) == 4:
            host.mm.interrupt_current_processing(True)

    host.utils.set_progress_bar_global_hook(watch)
    try:
        with pytest.raises(host.mm.InterruptProcessingException):
            run("Refine", image=image(CONTENT), content=image(CONTENT), style=image(STYLE), steps=50)
    finally:
        host.utils.set_progress_bar_global_hook(None)
    previews = [preview for _, preview in shown if preview is not None]
    assert [(kind, preview.size) for kind, preview, _ in previews] == [("JPEG", (72, 48))] * 4
    values = [value for value, _ in shown]
    assert values == sorted(values) and 0 < values[-1] < pack_module("nodes.bridge").STEPS / 4
    assert not host.mm.processing_interrupted()
