"""Results of the nodes in ComfyUI: what the library gives, for batches, styles, sampling and masks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from adaattn_core import load_model, stylize
from adaattn_core.ops.resize import resize_image
from tests.helpers.comfy_pack import load_pack, pack_module
from tests.helpers.comparison import assert_same
from tests.helpers.node_images import CONTENT, LEFT, OTHER, STYLE, image, masked, pixels
from tests.helpers.small_models import picture


def tensors_in(value: Any) -> Iterator[Tensor]:
    """As the host's cache looks for them: in tuples and lists only."""
    for item in value:
        if isinstance(item, Tensor):
            yield item
        elif isinstance(item, (tuple, list)):
            yield from tensors_in(item)


# ---------------------------------------------------------------- results


@pytest.mark.parametrize("options", [{}, {"strength": 0.6}, {"keep_color": True, "temperature": 2.0}])
def test_one_node_gives_what_the_library_gives(run: Callable[..., Any], options: dict[str, Any]) -> None:
    before = CONTENT.clone(), STYLE.clone()
    result = run(
        "Stylize", model_name="built-in", content=image(CONTENT), style=image(STYLE), **{"strength": 1.0, **options}
    )
    assert_same(pixels(result), stylize(load_model("compact-0.1"), CONTENT, STYLE, **options))
    assert torch.equal(CONTENT, before[0]) and torch.equal(STYLE, before[1])


@pytest.mark.parametrize("strength", [1.0, 0.6, 0.0])
def test_the_chain_of_nodes_gives_what_one_node_gives(
    run: Callable[..., Any], parts: tuple[Any, Any, Any], strength: float
) -> None:
    encoder, attention, decoder = parts
    content, style = (run("ExtractFeatures", encoder=encoder, image=image(one)) for one in (CONTENT, STYLE))
    fused, mask = run("Apply", attention=attention, content=content, style=style, strength=strength)
    result = run("Decode", decoder=decoder, fused=fused)
    wanted = run("Stylize", model_name="built-in", content=image(CONTENT), style=image(STYLE), strength=strength)
    assert_same(pixels(result), pixels(wanted))
    assert torch.equal(mask, torch.ones(1, 48, 72))


def test_what_goes_over_the_wires_can_be_weighed(run: Callable[..., Any], parts: tuple[Any, Any, Any]) -> None:
    """Every tensor lies in tuples, where the host's cache counts it, and on the CPU."""
    encoder, attention, _ = parts
    features = run("ExtractFeatures", encoder=encoder, image=image(CONTENT))
    fused, _ = run("Apply", attention=attention, content=features, style=features, strength=0.5)
    assert len(list(tensors_in([features]))) == 1 + len(features.names)  # the picture and its levels
    assert sum(x.numel() for x in tensors_in([features])) > 3 * 48 * 72 + 96 * 12 * 18  # with relu3_1 whole
    assert len(list(tensors_in([fused]))) == 6  # deep and skip, of the painting and of the content; content; strength
    for tensor in tensors_in([features, fused]):
        assert tensor.device.type == "cpu"


def test_batches_pair_up_and_one_style_serves_all(run: Callable[..., Any], parts: tuple[Any, Any, Any]) -> None:
    content, style = picture(48, 72, batch=3), picture(45, 34, batch=3, seed=1)
    model = load_model("compact-0.1")
    for styles in (style, style[:1]):
        wanted = stylize(model, content, styles)
        result = run("Stylize", model_name="built-in", content=image(content), style=image(styles), strength=1.0)
        assert_same(pixels(result), wanted)
        encoder, attention, decoder = parts
        features = [run("ExtractFeatures", encoder=encoder, image=image(one)) for one in (content, styles)]
        fused, _ = run("Apply", attention=attention, content=features[0], style=features[1], strength=1.0)
        assert_same(pixels(run("Decode", decoder=decoder, fused=fused)), wanted)


def test_large_batches_are_stylized_in_parts(
    run: Callable[..., Any], parts: tuple[Any, Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack_module("adaattn_core.inference.batching"), "BATCH_PIXELS", 2 * 48 * 72)
    test_batches_pair_up_and_one_style_serves_all(run, parts)


def test_the_defaults_of_the_loaders_fit_together_and_are_the_model_base(
    run: Callable[..., Any],
    host: Any,  # noqa: ANN401
) -> None:
    def default(node: str) -> str:
        choice: str = host.nodes[f"AdaAttN_{node}"].INPUT_TYPES()["required"][
            {"LoadEncoder": "encoder_name"}.get(node, "model_name")
        ][1]["default"]
        return choice

    assert {default("Stylize"), default("LoadModel")} == {"base (built in)"}
    encoder = run("LoadEncoder", encoder_name=default("LoadEncoder"))
    _, attention, decoder = run("LoadModel", model_name=default("LoadModel"))
    content, style = (run("ExtractFeatures", encoder=encoder, image=image(one)) for one in (CONTENT, STYLE))
    fused = run("Apply", attention=attention, content=content, style=style, strength=1.0)[0]
    assert_same(pixels(run("Decode", decoder=decoder, fused=fused)), stylize(load_model("base"), CONTENT, STYLE))


def test_images_with_alpha_and_in_half_precision(run: Callable[..., Any]) -> None:
    opaque = torch.cat([image(CONTENT), torch.ones(1, 48, 72, 1)], dim=-1)
    wanted = run("Stylize", model_name="built-in", content=image(CONTENT), style=image(STYLE), strength=1.0)
    result = run("Stylize", model_name="built-in", content=opaque, style=image(STYLE), strength=1.0)
    assert torch.equal(result, wanted)  # an opaque content has three channels
    half = run("Stylize", model_name="built-in", content=image(CONTENT).half(), style=image(STYLE), strength=1.0)
    assert_same(pixels(half), stylize(load_model("compact-0.1"), CONTENT.half().float(), STYLE))


def test_styles_mix_by_weight(run: Callable[..., Any], parts: tuple[Any, Any, Any]) -> None:
    encoder, attention, decoder = parts
    content, *styles = (run("ExtractFeatures", encoder=encoder, image=image(one)) for one in (CONTENT, STYLE, OTHER))
    fused = [run("Apply", attention=attention, content=content, style=style, strength=0.8)[0] for style in styles]
    mixed = run("MixStyles", fused_1=fused[0], weight_1=3.0, fused_4=fused[1], weight_4=1.0)
    wanted = stylize(load_model("compact-0.1"), CONTENT, [STYLE, OTHER], style_weights=[3, 1], strength=0.8)
    assert_same(pixels(run("Decode", decoder=decoder, fused=mixed)), wanted)
    one_node = run(
        "Stylize", model_name="built-in", content=image(CONTENT), style=image(STYLE), style_weight=3.0,
        style_3=image(OTHER), style_3_weight=1.0, strength=0.8,
    )  # fmt: skip
    assert_same(pixels(one_node), wanted)


def test_style_size_reduces_styles(run: Callable[..., Any]) -> None:
    big = picture(200, 300, seed=4)
    inputs = {"model_name": "built-in", "content": image(CONTENT), "style": image(big), "strength": 1.0}
    small = stylize(load_model("compact-0.1"), CONTENT, resize_image(big, short_side=64))
    assert_same(pixels(run("Stylize", **inputs, style_size=64)), small)
    assert_same(pixels(run("Stylize", **inputs, style_size=0)), stylize(load_model("compact-0.1"), CONTENT, big))


@pytest.mark.parametrize("seed", [0, 7])
def test_sampled_attention(run: Callable[..., Any], seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("adaattn_core", load_pack().__name__ + ".adaattn_core"):
        monkeypatch.setattr(sys.modules[f"{package}.inference.stages"], "SAMPLED_POSITIONS", 20)
    result = run(
        "Stylize", model_name="built-in", content=image(CONTENT), style=image(STYLE), strength=1.0,
        attention_mode="sampled", sample_seed=seed,
    )  # fmt: skip
    assert_same(pixels(result), stylize(load_model("compact-0.1"), CONTENT, STYLE, attention="sampled", seed=seed))


def test_an_attention_map(run: Callable[..., Any], parts: tuple[Any, Any, Any]) -> None:
    encoder, attention, _ = parts
    content, style = (run("ExtractFeatures", encoder=encoder, image=image(one)) for one in (CONTENT, STYLE))
    shown = {
        point: pixels(
            run("AttentionMap", attention=attention, content=content, style=style, x=point, y=0.5, level="relu3_1",
                opacity=1.0)
        )
        for point in (0.1, 0.9)
    }  # fmt: skip
    assert shown[0.1].shape == (1, 3, 45, 34)
    assert float((shown[0.1] - shown[0.9]).abs().max()) > 0.1, "two points look at the same places"


# ---------------------------------------------------------------- masks


def test_the_content_stays_where_the_mask_is_black(run: Callable[..., Any]) -> None:
    result, full = masked(run, LEFT), stylize(load_model("compact-0.1"), CONTENT, STYLE)
    assert torch.equal(result[..., 36:], CONTENT[..., 36:])
    assert_same(result[..., :36], full[..., :36])
    assert torch.equal(masked(run, LEFT[None]), result)
    turned = masked(run, LEFT, mask_invert=True)
    assert torch.equal(turned[..., :36], CONTENT[..., :36])


def test_load_images_empty_mask_counts_as_no_mask(run: Callable[..., Any]) -> None:
    assert_same(masked(run, torch.zeros(1, 64, 64)), stylize(load_model("compact-0.1"), CONTENT, STYLE))


def test_the_mask_as_applied_comes_out(run: Callable[..., Any], parts: tuple[Any, Any, Any]) -> None:
    encoder, attention, decoder = parts
    features = run("ExtractFeatures", encoder=encoder, image=image(CONTENT))
    fused, mask = run(
        "Apply", attention=attention, content=features, style=features, strength=1.0, content_mask=LEFT * 0.6,
        mask_threshold=0.5, mask_invert=True, mask_feather=6,
    )  # fmt: skip
    assert mask.shape == (1, 48, 72)
    assert bool((mask[..., :30] == 0).all()) and bool((mask[..., 42:] == 1).all())
    assert bool(((mask[..., 30:42] > 0) & (mask[..., 30:42] < 1)).all())
    result = pixels(run("Decode", decoder=decoder, fused=fused))
    assert torch.equal(result[..., :30], CONTENT[..., :30])


def test_region_to_region(run: Callable[..., Any], parts: tuple[Any, Any, Any]) -> None:
    """Left of the content after the left of the style, right after the right; each as if the other half of the style
    did not exist."""
    encoder, attention, decoder = parts
    content, style = (run("ExtractFeatures", encoder=encoder, image=image(one)) for one in (CONTENT, STYLE))
    halves = [(torch.arange(34) < 17).float().expand(45, 34), (torch.arange(34) >= 17).float().expand(45, 34)]
    inputs = {"attention": attention, "content": content, "style": style, "strength": 1.0}
    fused = [
        run("Apply", **inputs, content_mask=area, style_mask=half)
        for area, half in zip([LEFT, 1 - LEFT], halves, strict=True)
    ]
    mixed = run("MixStyles", fused_1=fused[0][0], fused_2=fused[1][0])
    result = pixels(run("Decode", decoder=decoder, fused=mixed))
    model = load_model("compact-0.1")
    left = stylize(model, CONTENT, STYLE, style_masks=[halves[0]])
    assert float((result - left)[..., 40:].abs().mean()) > 1 / 255
    assert_same(pixels(run("Decode", decoder=decoder, fused=fused[0][0]))[..., :36], left[..., :36])
    one_node = masked(run, LEFT, style_mask=halves[0])
    assert_same(one_node[..., :36], left[..., :36])
