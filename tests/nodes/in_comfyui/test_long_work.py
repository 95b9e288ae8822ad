"""Long work in ComfyUI: progress, previews, cancel, and memory that runs out or is released."""

from __future__ import annotations

import gc
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from adaattn_core import load_model, stylize
from tests.helpers.comfy_pack import load_pack, pack_module
from tests.helpers.comparison import assert_same
from tests.helpers.node_images import CONTENT, LEFT, STYLE, image, masked, pixels
from tests.helpers.small_models import picture


def test_progress_and_a_preview(host: SimpleNamespace, run: Callable[..., Any]) -> None:
    told: list[tuple[int, int, Any]] = []
    bridge = pack_module("nodes.bridge")
    host.utils.set_progress_bar_global_hook(lambda value, total, preview, **_: told.append((value, total, preview)))
    try:
        content = image(picture(64, 64, batch=3))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pack_module("adaattn_core.inference.batching"), "BATCH_PIXELS", 1)
            run("Stylize", model_name="built-in", content=content, style=image(STYLE), strength=1.0)
    finally:
        host.utils.set_progress_bar_global_hook(None)
    values = [value for value, _, _ in told]
    assert values == sorted(values) and values[-1] == bridge.STEPS and {total for _, total, _ in told} == {bridge.STEPS}
    previews = [preview for _, _, preview in told if preview is not None]
    assert len(previews) == 3
    assert previews[0][0] == "JPEG" and previews[0][1].size == (64, 64)


def test_a_large_picture_has_a_small_preview_first(
    host: SimpleNamespace, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = pack_module("nodes.stylize")
    monkeypatch.setattr(module, "PREVIEW_ABOVE", 40 * 70)
    monkeypatch.setattr(module, "PREVIEW_SIZE", 20)
    previews: list[Any] = []

    def keep(value: int, total: int, preview: Any, **_: object) -> None:
        if preview is not None:
            previews.append(preview[1])

    host.utils.set_progress_bar_global_hook(keep)
    try:
        result = masked(run, LEFT)
    finally:
        host.utils.set_progress_bar_global_hook(None)
    assert [preview.size for preview in previews] == [(30, 20), (72, 48)]
    assert torch.equal(result[..., 36:], CONTENT[..., 36:])


@pytest.mark.parametrize("node", ["Stylize", "ExtractFeatures", "Apply", "Decode", "Refine"])
def test_cancel_ends_the_work_and_leaves_nothing_behind(
    host: SimpleNamespace, run: Callable[..., Any], parts: tuple[Any, Any, Any], node: str
) -> None:
    encoder, attention, decoder = parts
    features = run("ExtractFeatures", encoder=encoder, image=image(CONTENT))
    fused, _ = run("Apply", attention=attention, content=features, style=features, strength=1.0)
    inputs = {
        "Stylize": {"model_name": "built-in", "content": image(CONTENT), "style": image(STYLE), "strength": 1.0},
        "ExtractFeatures": {"encoder": encoder, "image": image(CONTENT)},
        "Apply": {"attention": attention, "content": features, "style": features, "strength": 1.0},
        "Decode": {"decoder": decoder, "fused": fused},
        "Refine": {"image": image(CONTENT), "content": image(CONTENT), "style": image(STYLE), "steps": 1},
    }[node]
    host.mm.interrupt_current_processing(True)
    with pytest.raises(host.mm.InterruptProcessingException):
        run(node, **inputs)
    assert not host.mm.processing_interrupted()
    hooked = [layer for part in parts for layer in part.module.modules() if layer._forward_pre_hooks]
    assert not hooked
    run(node, **inputs)


def test_out_of_memory_halves_and_goes_on(
    host: SimpleNamespace, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = picture(48, 72, batch=4)
    wanted = stylize(load_model("compact-0.1"), content, STYLE)
    fusion = pack_module("adaattn_core.models.fusion").MultiLevelFusion
    sizes: list[int] = []
    merge = fusion.merge

    def narrow(self: Any, painted: dict[str, Tensor]) -> Any:
        sizes.append(len(painted["relu3_1"]))
        if sizes[-1] > 1:
            raise host.mm.OOM_EXCEPTION("out of memory")
        return merge(self, painted)

    monkeypatch.setattr(fusion, "merge", narrow)
    result = run("Stylize", model_name="built-in", content=image(content), style=image(STYLE), strength=1.0)
    assert_same(pixels(result), wanted)
    assert sizes == [4, 2, *4 * [1, 1]]  # the painted features of each item, and its own for another strength


def test_out_of_memory_makes_strips_smaller(
    host: SimpleNamespace, run: Callable[..., Any], parts: tuple[Any, Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the nodes that have no attention, whose blocks could be smaller instead."""
    features = run("ExtractFeatures", encoder=parts[0], image=image(CONTENT))
    fused, _ = run("Apply", attention=parts[1], content=features, style=features, strength=1.0)
    seen: list[int | None] = []
    for name in ("extract_features", "decode"):
        work = getattr(pack_module("adaattn_core.inference.stages"), name)

        def narrow(*args: Any, work: Callable[..., Any] = work, **options: Any) -> Any:
            seen.append(options["tile_bytes"])
            if seen[-1] is None or seen[-1] > 2**21:
                raise host.mm.OOM_EXCEPTION("out of memory")
            return work(*args, **options)

        monkeypatch.setattr(pack_module("adaattn_core.inference.stages"), name, narrow)
    run("ExtractFeatures", encoder=parts[0], image=image(CONTENT))
    run("Decode", decoder=parts[2], fused=fused)
    assert seen == 2 * [None, 2**22, 2**21]


def test_two_runs_leave_no_model_behind(host: SimpleNamespace, run: Callable[..., Any]) -> None:
    """The host's list holds no living model of ours once its sockets are gone, and nobody else holds those that Stylize
    keeps for its next run."""
    for _ in range(2):
        parts = run("LoadModel", model_name="built-in")
        run("ExtractFeatures", encoder=parts[0], image=image(CONTENT))
        run("Stylize", model_name="built-in", content=image(CONTENT), style=image(STYLE), strength=1.0)
        run("Refine", image=image(CONTENT), content=image(CONTENT), style=image(STYLE), steps=1)
        del parts
    pack_module("nodes.bridge")._models.clear()
    gc.collect()
    alive = [one for one in host.mm.current_loaded_models if one.model is not None]
    assert not alive, [type(one.model.model).__name__ for one in alive]
    pack = load_pack().__name__
    left = [x for x in gc.get_objects() if type(x).__module__ == f"{pack}.adaattn_core.models.encoder"]
    assert not left
