"""AdaAttN Stylize with a stroke size: the library's passes, and nothing computed twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from adaattn_core import load_model, save_model, stylize
from tests.helpers.comfy_pack import pack_module
from tests.helpers.comparison import assert_same, difference
from tests.helpers.node_images import image, pixels
from tests.helpers.small_models import picture, small_model
from tests.helpers.stylize_pictures import left_half

Run = Callable[..., Any]
CONTENT, OTHER_CONTENT = picture(128, 192, seed=3), picture(128, 192, seed=6)
STYLE, OTHER = picture(140, 100, seed=4), picture(90, 80, seed=5)
TWO_PASSES = 8.0
"""The stroke size with which a short side of 128 pixels is painted in two passes."""
STYLIZE = {
    "model_name": "small.safetensors", "content": image(CONTENT), "style": image(STYLE), "strength": 0.8,
    "stroke_size": TWO_PASSES,
}  # fmt: skip
MASK = left_half(128, 192)[0, 0]


@pytest.fixture(autouse=True)
def small_file(host: SimpleNamespace) -> Iterator[Path]:
    """A narrow model of a user's, and nothing kept, as after a start of ComfyUI."""
    path: Path = host.models / "small.safetensors"
    save_model(small_model(), path)
    pack_module("nodes.bridge")._models.clear()
    yield path
    pack_module("nodes.bridge")._models.clear()
    path.unlink()


def test_the_node_paints_what_the_library_paints(run: Run, small_file: Path) -> None:
    style_mask = left_half(140, 100)
    wanted = stylize(
        load_model(small_file), CONTENT, [STYLE, OTHER], style_weights=[2.0, 1.0], style_masks=[style_mask, None],
        strength=0.8, temperature=1.5, keep_color=True, content_mask=MASK[None, None], stroke_size=TWO_PASSES,
    )  # fmt: skip
    mixed = {
        "style_mask": style_mask[0], "style_weight": 2.0, "style_2": image(OTHER), "temperature": 1.5,
        "keep_color": True, "content_mask": MASK,
    }  # fmt: skip
    assert_same(pixels(run("Stylize", **STYLIZE, **mixed)), wanted)


def test_each_content_of_a_batch_in_each_style(run: Run) -> None:
    contents, styles = torch.cat([CONTENT, OTHER_CONTENT]), torch.cat([STYLE, STYLE.flip(-1)])
    batch = run("Stylize", **{**STYLIZE, "content": image(contents), "style": image(styles)}, every_style=True)
    pairs = [(content, style) for content in contents for style in styles]
    for result, (content, style) in zip(batch, pairs, strict=True):
        alone = run("Stylize", **{**STYLIZE, "content": image(content[None]), "style": image(style[None])})
        assert_same(result[None], alone)


CHANGES: dict[str, dict[str, Any]] = {
    "one pass": {"stroke_size": 0.0},
    "other passes": {"stroke_size": 4.0},
    "content": {"content": image(OTHER_CONTENT)},
    "style": {"style": image(OTHER)},
    "strength": {"strength": 0.3},
    "full strength": {"strength": 1.0},
    "keep_color": {"keep_color": True},
    "content_mask": {"content_mask": MASK},
    "style_mask": {"style_mask": left_half(140, 100)[0]},
    "temperature": {"temperature": 3.0},
    "sampled": {"attention_mode": "sampled"},
    "sample_seed": {"attention_mode": "sampled", "sample_seed": 5},
    "style_2": {"style_2": image(OTHER)},
}


def test_every_change_gives_what_a_fresh_run_gives(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run after the other, with all that was kept before; each result differs from the first one."""
    monkeypatch.setattr(pack_module("adaattn_core.inference.stages"), "SAMPLED_POSITIONS", 20)
    first = run("Stylize", **STYLIZE)
    results = {name: run("Stylize", **{**STYLIZE, **change}) for name, change in CHANGES.items()}
    assert torch.equal(run("Stylize", **STYLIZE), first)
    for name, change in CHANGES.items():
        pack_module("nodes.bridge")._models.clear()
        assert_same(results[name], run("Stylize", **{**STYLIZE, **change}))
        assert difference(results[name], first) > 0.1, name


def test_colours_and_masks_are_applied_after_painting(run: Run, work: Counter[str]) -> None:
    run("Stylize", **STYLIZE)
    work.clear()
    for change in ({"keep_color": True}, {"content_mask": MASK}, {"content_mask": MASK, "mask_feather": 4}):
        run("Stylize", **STYLIZE, **change)
    assert work == {}


def test_another_strength_is_decoded_alone(run: Run, work: Counter[str]) -> None:
    run("Stylize", **STYLIZE)
    work.clear()
    run("Stylize", **{**STYLIZE, "strength": 0.4})
    assert work == {"in_tiles": 1}


def test_another_content_needs_no_new_encoding_of_the_style(run: Run, work: Counter[str]) -> None:
    """A content is encoded once in each pass, and once more as itself for a strength below 1."""
    run("Stylize", **STYLIZE)
    work.clear()
    run("Stylize", **{**STYLIZE, "content": image(OTHER_CONTENT)})
    assert work["encode"] == 3


def test_a_style_size_that_is_not_used_is_named(host: SimpleNamespace) -> None:
    def notices(**options: Any) -> list[str]:
        output = host.nodes["AdaAttN_Stylize"].execute(**{**STYLIZE, **options})
        found: list[str] = (output.ui or {}).get(pack_module("nodes.outcome").NOTICES, [])
        return found

    assert notices(style_size=256) == ["style size 256 is not used: with a stroke size, each pass has its own"]
    assert notices(style_size=256, stroke_size=0.0) == [] == notices()


@pytest.mark.parametrize("size", [-1.0, 9.0, float("nan")])
def test_a_stroke_size_out_of_range_is_refused(run: Run, size: float) -> None:
    with pytest.raises(ValueError, match=rf"^stroke_size is {size}; a number from 0 to 8 is needed"):
        run("Stylize", **{**STYLIZE, "stroke_size": size})
