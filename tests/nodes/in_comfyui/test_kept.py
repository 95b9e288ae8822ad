"""What the nodes keep for the next run: another strength needs no new attention, and no input is overlooked."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from adaattn_core import save_model
from tests.helpers.comfy_pack import load_pack, pack_module
from tests.helpers.comparison import assert_same
from tests.helpers.node_images import CONTENT, LEFT, OTHER, STYLE, image
from tests.helpers.small_models import picture, small_model

Run = Callable[..., Any]
HALF = (torch.arange(34) < 17).float().expand(45, 34)
STYLIZE = {"model_name": "built-in", "content": image(CONTENT), "style": image(STYLE), "strength": 0.8}


@pytest.fixture(autouse=True)
def nothing_kept(host: SimpleNamespace) -> Iterator[None]:
    """As after a start of ComfyUI."""
    pack_module("nodes.bridge")._models.clear()
    yield
    pack_module("nodes.bridge")._models.clear()


# ---------------------------------------------------------------- what is not computed again


def test_colours_and_masks_are_applied_after_painting(run: Run, work: Counter[str]) -> None:
    run("Stylize", **STYLIZE)
    work.clear()
    for change in ({"keep_color": True}, {"content_mask": LEFT}, {"content_mask": LEFT, "mask_feather": 4}):
        run("Stylize", **STYLIZE, **change)
    assert work == {}


@pytest.mark.parametrize("first", [1.0, 0.8])
def test_another_strength_is_decoded_alone(run: Run, work: Counter[str], first: float) -> None:
    """What the decoder makes of the content itself is computed once."""
    run("Stylize", **{**STYLIZE, "strength": first})
    work.clear()
    run("Stylize", **{**STYLIZE, "strength": 0.6})
    assert work == {"in_tiles": 2 if first == 1 else 1}
    work.clear()
    run("Stylize", **{**STYLIZE, "strength": 0.4})
    assert work == {"in_tiles": 1}


def test_the_seed_counts_for_sampled_attention_alone(run: Run, work: Counter[str]) -> None:
    run("Stylize", **STYLIZE)
    work.clear()
    run("Stylize", **STYLIZE, sample_seed=7)
    assert work == {}
    run("Stylize", **STYLIZE, sample_seed=7, attention_mode="sampled")
    assert work["statistics"] > 0


def test_another_content_needs_no_new_encoding_of_the_style(run: Run, work: Counter[str]) -> None:
    run("Stylize", **STYLIZE)
    work.clear()
    run("Stylize", **{**STYLIZE, "content": image(OTHER)})
    assert work["encode"] == 1


def test_another_strength_of_apply_needs_no_attention(
    run: Run, parts: tuple[Any, Any, Any], work: Counter[str]
) -> None:
    content, style = (run("ExtractFeatures", encoder=parts[0], image=image(one)) for one in (CONTENT, STYLE))
    inputs = {"attention": parts[1], "content": content, "style": style}
    run("Apply", **inputs, strength=1.0)
    work.clear()
    kept, _ = run("Apply", **inputs, strength=0.6)
    assert work == {}
    parts[1].kept.clear()
    anew, _ = run("Apply", **inputs, strength=0.6)
    assert work["statistics"] > 0
    for one, other in zip(kept.fused + kept.own, anew.fused + anew.own, strict=True):
        assert torch.equal(one, other)


# ---------------------------------------------------------------- nothing is overlooked

CHANGES: dict[str, dict[str, Any]] = {
    "content": {"content": image(CONTENT.flip(-1))},
    "one value of the content": {"content": image(CONTENT + torch.eye(48, 72) * 1e-3).clamp(0, 1)},
    "style": {"style": image(OTHER)},
    "strength": {"strength": 0.3},
    "style_size": {"style_size": 20},
    "keep_color": {"keep_color": True},
    "content_mask": {"content_mask": LEFT},
    "mask_invert": {"content_mask": LEFT, "mask_invert": True},
    "mask_feather": {"content_mask": LEFT, "mask_feather": 5},
    "mask_threshold": {"content_mask": LEFT * 0.6 + 0.2, "mask_threshold": 0.5},
    "style_mask": {"style_mask": HALF},
    "style_weight": {"style_2": image(OTHER), "style_weight": 3.0},
    "style_2": {"style_2": image(OTHER)},
    "style_2_weight": {"style_2": image(OTHER), "style_2_weight": 3.0},
    "style_3": {"style_3": image(picture(40, 40, seed=5))},
    "style_4": {"style_4": image(picture(40, 40, seed=6))},
    "temperature": {"temperature": 3.0},
    "attention_mode": {"attention_mode": "sampled"},
    "sample_seed": {"attention_mode": "sampled", "sample_seed": 5},
    "refine_steps": {"refine_steps": 1},
    "every_style": {"content": image(picture(48, 72, batch=2)), "style": image(picture(45, 34, batch=2))},
    "every_style on": {
        "content": image(picture(48, 72, batch=2)), "style": image(picture(45, 34, batch=2)), "every_style": True,
    },
}  # fmt: skip
"""An input of AdaAttN Stylize, changed with what it needs to have an effect."""
REGIONS: dict[str, dict[str, Any]] = {
    "regions": {"style": image(OTHER), "mask": LEFT},
    "mask of a region": {"style": image(OTHER), "mask": 1 - LEFT},
    "style of a region": {"style": image(OTHER.flip(-1)), "mask": LEFT},
    "feather of a region": {"style": image(OTHER), "mask": LEFT, "mask_feather": 5},
    "weight of a region": {"style": image(OTHER), "mask": LEFT * 0.5, "weight": 3.0},
    "style mask of a region": {
        "style": image(OTHER), "mask": LEFT, "style_mask": (torch.arange(48) < 20).float().expand(32, 48),
    },
}  # fmt: skip
"""Inputs of AdaAttN Style Region, whose output is connected to AdaAttN Stylize."""


def test_every_change_of_an_input_gives_what_a_fresh_run_gives(
    host: SimpleNamespace, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run after the other, with all that was kept before; each result differs from the first one."""
    monkeypatch.setattr(pack_module("adaattn_core.inference.stages"), "SAMPLED_POSITIONS", 20)
    names = {one.id for one in host.nodes["AdaAttN_Stylize"].GET_SCHEMA().inputs}
    unchecked = {
        "model_name",
        "style_3_weight",
        "style_4_weight",
        "stroke_size",
    }  # the first below, the last in test_stroke_size, others as weight 2
    changes = CHANGES | {name: {"regions": run("StyleRegion", **options)} for name, options in REGIONS.items()}
    assert names - unchecked == {name for name in changes if name in names}
    first = run("Stylize", **STYLIZE)
    results = {name: run("Stylize", **{**STYLIZE, **change}) for name, change in changes.items()}
    assert torch.equal(run("Stylize", **STYLIZE), first)
    for name, change in changes.items():
        pack_module("nodes.bridge")._models.clear()
        assert_same(results[name], run("Stylize", **{**STYLIZE, **change}))
        assert results[name].shape != first.shape or not torch.equal(results[name], first), name


def test_another_file_of_the_same_name_is_another_model(host: SimpleNamespace, run: Run) -> None:
    path = host.models / "mine.safetensors"
    try:
        results = []
        for seed in (0, 1):
            save_model(small_model(seed), path)
            results.append(run("Stylize", **{**STYLIZE, "model_name": "mine.safetensors"}))
        assert not torch.equal(*results)
    finally:
        path.unlink()


def test_an_input_that_is_changed_in_place_is_noticed(run: Run) -> None:
    content = image(CONTENT).clone()
    first = run("Stylize", **{**STYLIZE, "content": content})
    content.neg_().add_(1)
    assert not torch.equal(run("Stylize", **{**STYLIZE, "content": content}), first)


def test_a_result_that_is_changed_in_place_stays_as_it_was_kept(run: Run) -> None:
    first = run("Stylize", **STYLIZE)
    wanted = first.clone()
    first.zero_()
    assert torch.equal(run("Stylize", **STYLIZE), wanted)


# ---------------------------------------------------------------- memory


def living(module: str) -> list[Any]:
    name = f"{load_pack().__name__}.adaattn_core.{module}"
    return [x for x in gc.get_objects() if type(x).__module__ == name and type(x).__name__ == "VGGEncoder"]


def kept_bytes() -> int:
    return sum(part.kept.bytes for part in pack_module("nodes.bridge")._models.values())


def test_all_that_is_kept_goes_with_the_model(host: SimpleNamespace, run: Run) -> None:
    """When ComfyUI unloads models: for another that needs the memory, or because a person asks for it."""
    run("Stylize", **STYLIZE)
    assert kept_bytes() > 0
    host.mm.unload_all_models()
    assert kept_bytes() == 0 and host.mm.current_loaded_models == []


def test_the_models_used_last_stay_and_no_others(host: SimpleNamespace, run: Run) -> None:
    bridge = pack_module("nodes.bridge")
    paths = [host.models / f"{seed}.safetensors" for seed in range(bridge.KEPT_MODELS + 1)]
    try:
        for seed, path in enumerate(paths):
            save_model(small_model(seed), path)
            run("Stylize", **{**STYLIZE, "model_name": path.name})
    finally:
        for path in paths:
            path.unlink()
    gc.collect()
    assert len(living("models.encoder")) == bridge.KEPT_MODELS
    bridge._models.clear()
    gc.collect()
    assert living("models.encoder") == []


def test_memory_is_bounded_over_many_runs(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = 3 * 2**20
    monkeypatch.setattr(pack_module("nodes.bridge"), "KEPT_BYTES", limit)
    for seed in range(4):
        run("Stylize", **{**STYLIZE, "content": image(picture(48, 72, seed=seed))})
        assert 0 < kept_bytes() <= limit


def test_a_picture_too_large_to_keep_is_painted_all_the_same(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted: Tensor = run("Stylize", **STYLIZE)
    pack_module("nodes.bridge")._models.clear()
    monkeypatch.setattr(pack_module("nodes.bridge"), "KEPT_BYTES", 1000)
    for _ in range(2):
        assert_same(run("Stylize", **STYLIZE), wanted)
        assert kept_bytes() == 0
