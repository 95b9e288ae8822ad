"""The nodes inside a real ComfyUI, in this process and without a server: schemas, results, errors.

Runs where COMFYUI_PATH names a ComfyUI checkout and its requirements are installed:
    COMFYUI_PATH=~/ComfyUI pytest tests/nodes/test_in_comfyui.py
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from adaattn_core import load_model, refine, save_model, stylize
from adaattn_core.ops.resize import resize_image
from tests.helpers.comfy_pack import load_pack, pack_module
from tests.helpers.small_models import picture, small_model

COMFYUI = os.environ.get("COMFYUI_PATH")
pytestmark = pytest.mark.skipif(not COMFYUI, reason="set COMFYUI_PATH to a ComfyUI checkout to run the nodes in it")

CONTENT, STYLE, OTHER = picture(48, 72), picture(45, 34, seed=1), picture(32, 48, seed=2)
LEFT = (torch.arange(72) < 36).float().expand(48, 72)

CONTRACT = {
    "AdaAttN_LoadEncoder": ({"encoder_name": "COMBO"}, ["ADAATTN_ENCODER"]),
    "AdaAttN_LoadModel": ({"model_name": "COMBO"}, ["ADAATTN_ENCODER", "ADAATTN_ATTENTION", "ADAATTN_DECODER"]),
    "AdaAttN_ExtractFeatures": ({"encoder": "ADAATTN_ENCODER", "image": "IMAGE"}, ["ADAATTN_FEATURES"]),
    "AdaAttN_Apply": (
        {
            "attention": "ADAATTN_ATTENTION",
            "content": "ADAATTN_FEATURES",
            "style": "ADAATTN_FEATURES",
            "strength": "FLOAT",
            "content_mask": "MASK",
            "mask_invert": "BOOLEAN",
            "mask_feather": "INT",
            "mask_threshold": "FLOAT",
            "style_mask": "MASK",
            "temperature": "FLOAT",
            "attention_mode": "COMBO",
            "sample_seed": "INT",
        },
        ["ADAATTN_FUSED", "MASK"],
    ),
    "AdaAttN_Decode": (
        {"decoder": "ADAATTN_DECODER", "fused": "ADAATTN_FUSED", "keep_color": "BOOLEAN", "content": "IMAGE"},
        ["IMAGE"],
    ),
    "AdaAttN_Refine": (
        {
            "image": "IMAGE",
            "content": "IMAGE",
            "style": "IMAGE",
            "steps": "INT",
            "content_weight": "FLOAT",
            "mask": "MASK",
            "keep_color": "BOOLEAN",
        },
        ["IMAGE"],
    ),
    "AdaAttN_MixStyles": (
        {
            f"{name}_{slot}": kind
            for slot in (1, 2, 3, 4)
            for name, kind in (("fused", "ADAATTN_FUSED"), ("weight", "FLOAT"), ("mask", "MASK"))
        },
        ["ADAATTN_FUSED"],
    ),
    "AdaAttN_AttentionMap": (
        {
            "attention": "ADAATTN_ATTENTION",
            "content": "ADAATTN_FEATURES",
            "style": "ADAATTN_FEATURES",
            "x": "FLOAT",
            "y": "FLOAT",
            "level": "COMBO",
            "opacity": "FLOAT",
            "temperature": "FLOAT",
        },
        ["IMAGE"],
    ),
    "AdaAttN_ExamplePicture": ({"picture": "COMBO", "frames": "INT"}, ["IMAGE", "MASK"]),
    "AdaAttN_Stylize": (
        {
            "model_name": "COMBO",
            "content": "IMAGE",
            "style": "IMAGE",
            "strength": "FLOAT",
            "style_size": "INT",
            "keep_color": "BOOLEAN",
            "content_mask": "MASK",
            "mask_invert": "BOOLEAN",
            "mask_feather": "INT",
            "mask_threshold": "FLOAT",
            "style_mask": "MASK",
            "style_weight": "FLOAT",
            "style_2": "IMAGE",
            "style_2_weight": "FLOAT",
            "style_3": "IMAGE",
            "style_3_weight": "FLOAT",
            "style_4": "IMAGE",
            "style_4_weight": "FLOAT",
            "temperature": "FLOAT",
            "attention_mode": "COMBO",
            "sample_seed": "INT",
            "refine_steps": "INT",
        },
        ["IMAGE"],
    ),
}
"""Ids, inputs in their order (saved workflows keep widget values by position) and outputs: for ever."""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """ComfyUI on the CPU, with the pack in it: nodes by id, and ComfyUI's modules."""
    assert COMFYUI
    sys.path.insert(0, COMFYUI)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ComfyUI's and its requirements' own
        import comfy.options  # noqa: F401 (before all of comfy)
        from comfy.cli_args import args

        args.cpu = True
        import comfy.model_management
        import comfy.utils
        import folder_paths

        models = tmp_path_factory.mktemp("models")
        folder_paths.set_temp_directory(str(tmp_path_factory.mktemp("temp")))
        extension = asyncio.run(load_pack().comfy_entrypoint())
        listed = asyncio.run(extension.get_node_list())
        folder_paths.add_model_folder_path("adaattn", str(models), is_default=True)
        nodes = {node.GET_SCHEMA().node_id: node for node in listed}
    return SimpleNamespace(nodes=nodes, mm=comfy.model_management, utils=comfy.utils, models=models)


@pytest.fixture(autouse=True)
def as_the_host_runs_nodes() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture
def run(host: SimpleNamespace) -> Callable[..., Any]:
    """`run("Stylize", ...)` is that node's outputs, or its only one."""

    def call(node: str, **inputs: Any) -> Any:
        values = host.nodes[f"AdaAttN_{node}"].execute(**inputs).args
        return values[0] if len(values) == 1 else values

    return call


@pytest.fixture
def parts(run: Callable[..., Any]) -> tuple[Any, Any, Any]:
    """Encoder, attention and decoder of the built-in model."""
    encoder, attention, decoder = run("LoadModel", model_name="built-in")
    return encoder, attention, decoder


def image(pictures: Tensor) -> Tensor:
    return pictures.movedim(1, -1).contiguous()


def pixels(result: Tensor) -> Tensor:
    """IMAGE as (B, 3, H, W), checked to be one."""
    assert result.dtype == torch.float32 and result.ndim == 4 and result.shape[-1] == 3 and result.device.type == "cpu"
    assert result.min() >= 0 and result.max() <= 1
    return result.movedim(-1, 1)


def assert_same(ours: Tensor, wanted: Tensor) -> None:
    """Equal up to float32 rounding: a batch in another order, a window of another size."""
    torch.testing.assert_close(ours, wanted, rtol=0, atol=2e-5)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """As the host's cache looks for them: in tuples and lists only."""
    for item in value:
        if isinstance(item, Tensor):
            yield item
        elif isinstance(item, (tuple, list)):
            yield from tensors_in(item)


# ---------------------------------------------------------------- schemas


def test_ids_sockets_and_their_order_are_the_contract(host: SimpleNamespace) -> None:
    found = {}
    for name, node in host.nodes.items():
        schema = node.GET_SCHEMA()
        found[name] = (
            {one.id: str(one.get_io_type()) for one in schema.inputs},
            [str(one.get_io_type()) for one in schema.outputs],
        )
    assert found == CONTRACT
    assert {name: list(inputs) for name, (inputs, _) in found.items()} == {
        name: list(inputs) for name, (inputs, _) in CONTRACT.items()
    }


def test_everything_is_explained(host: SimpleNamespace) -> None:
    for name, node in host.nodes.items():
        schema = node.GET_SCHEMA()
        assert schema.category == "AdaAttN" and schema.display_name and schema.description.endswith("."), name
        for one in [*schema.inputs, *schema.outputs]:
            assert one.display_name and len(one.tooltip) > 15 and one.tooltip.endswith("."), f"{name}.{one.id}"
        assert len(getattr(schema, "search_aliases", ["new enough?"])) > 0


def test_numbers_have_a_range_a_step_and_a_default_inside(host: SimpleNamespace) -> None:
    numbers = 0
    for name, node in host.nodes.items():
        for one in node.GET_SCHEMA().inputs:
            if str(one.get_io_type()) in ("INT", "FLOAT"):
                numbers += 1
                assert one.min <= one.default <= one.max and one.step > 0, f"{name}.{one.id}"
                assert (one.max - one.min) / one.step >= 10, f"{name}.{one.id}"
    assert numbers > 20


def test_the_host_can_list_every_node(host: SimpleNamespace) -> None:
    """What /object_info and validation ask for; an exception here would drop the whole pack."""
    for name, node in host.nodes.items():
        inputs = node.INPUT_TYPES()
        wanted = {one.id for one in node.GET_SCHEMA().inputs}
        assert {*inputs["required"], *inputs.get("optional", {})} == wanted, name
        assert node.GET_NODE_INFO_V1()["name"] == name


def test_only_what_must_be_connected_is_required(host: SimpleNamespace) -> None:
    required = {
        name: [one.id for one in node.GET_SCHEMA().inputs if not one.optional] for name, node in host.nodes.items()
    }
    assert required["AdaAttN_Stylize"] == ["model_name", "content", "style", "strength"]
    assert required["AdaAttN_Apply"] == ["attention", "content", "style", "strength"]
    assert required["AdaAttN_Decode"] == ["decoder", "fused"]
    assert required["AdaAttN_Refine"] == ["image", "content", "style", "steps", "content_weight"]
    assert required["AdaAttN_MixStyles"] == ["fused_1"]


def test_defaults_of_the_schema_are_those_of_the_code(host: SimpleNamespace, run: Callable[..., Any]) -> None:
    """An input left out of an API prompt means the same as its widget untouched."""
    needed = {"model_name": "built-in", "content": image(CONTENT), "style": image(STYLE)}
    inputs = host.nodes["AdaAttN_Stylize"].GET_SCHEMA().inputs
    defaults = {one.id: one.default for one in inputs if hasattr(one, "default") and one.id not in needed}
    assert len(defaults) > 10
    for name, node in host.nodes.items():
        signature = inspect.signature(node.execute).parameters
        for one in node.GET_SCHEMA().inputs:
            if one.optional and one.id in signature:
                assert signature[one.id].default == getattr(one, "default", None), f"{name}.{one.id}"
    assert_same(run("Stylize", **needed, **defaults), run("Stylize", **needed, strength=1.0))


def test_models_appear_when_the_list_is_asked_for_again(host: SimpleNamespace) -> None:
    def listed() -> list[str]:
        return list(host.nodes["AdaAttN_LoadModel"].GET_SCHEMA().inputs[0].options)

    path = host.models / "mine.safetensors"
    assert listed() == ["built-in"]
    os.utime(host.models, (1, 1))  # the host looks at the folder's time, which may not tick between two tests
    save_model(small_model(), path)
    assert listed() == ["built-in", "mine.safetensors"]
    os.utime(host.models, (2, 2))
    path.unlink()
    assert listed() == ["built-in"]


# ---------------------------------------------------------------- results


@pytest.mark.parametrize("options", [{}, {"strength": 0.6}, {"keep_color": True, "temperature": 2.0}])
def test_one_node_gives_what_the_library_gives(run: Callable[..., Any], options: dict[str, Any]) -> None:
    before = CONTENT.clone(), STYLE.clone()
    result = run(
        "Stylize", model_name="built-in", content=image(CONTENT), style=image(STYLE), **{"strength": 1.0, **options}
    )
    assert_same(pixels(result), stylize(load_model(), CONTENT, STYLE, **options))
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
    model = load_model()
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


def test_images_with_alpha_and_in_half_precision(run: Callable[..., Any]) -> None:
    alpha = torch.cat([image(CONTENT), torch.zeros(1, 48, 72, 1)], dim=-1)
    wanted = run("Stylize", model_name="built-in", content=image(CONTENT), style=image(STYLE), strength=1.0)
    assert torch.equal(run("Stylize", model_name="built-in", content=alpha, style=image(STYLE), strength=1.0), wanted)
    half = run("Stylize", model_name="built-in", content=image(CONTENT).half(), style=image(STYLE), strength=1.0)
    assert_same(pixels(half), stylize(load_model(), CONTENT.half().float(), STYLE))


def test_styles_mix_by_weight(run: Callable[..., Any], parts: tuple[Any, Any, Any]) -> None:
    encoder, attention, decoder = parts
    content, *styles = (run("ExtractFeatures", encoder=encoder, image=image(one)) for one in (CONTENT, STYLE, OTHER))
    fused = [run("Apply", attention=attention, content=content, style=style, strength=0.8)[0] for style in styles]
    mixed = run("MixStyles", fused_1=fused[0], weight_1=3.0, fused_4=fused[1], weight_4=1.0)
    wanted = stylize(load_model(), CONTENT, [STYLE, OTHER], style_weights=[3, 1], strength=0.8)
    assert_same(pixels(run("Decode", decoder=decoder, fused=mixed)), wanted)
    one_node = run(
        "Stylize", model_name="built-in", content=image(CONTENT), style=image(STYLE), style_weight=3.0,
        style_3=image(OTHER), style_3_weight=1.0, strength=0.8,
    )  # fmt: skip
    assert_same(pixels(one_node), wanted)


def test_style_size_reduces_styles(run: Callable[..., Any]) -> None:
    big = picture(200, 300, seed=4)
    inputs = {"model_name": "built-in", "content": image(CONTENT), "style": image(big), "strength": 1.0}
    small = stylize(load_model(), CONTENT, resize_image(big, short_side=64))
    assert_same(pixels(run("Stylize", **inputs, style_size=64)), small)
    assert_same(pixels(run("Stylize", **inputs, style_size=0)), stylize(load_model(), CONTENT, big))


@pytest.mark.parametrize("seed", [0, 7])
def test_sampled_attention(run: Callable[..., Any], seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("adaattn_core", load_pack().__name__ + ".adaattn_core"):
        monkeypatch.setattr(sys.modules[f"{package}.inference.stages"], "SAMPLED_POSITIONS", 20)
    result = run(
        "Stylize", model_name="built-in", content=image(CONTENT), style=image(STYLE), strength=1.0,
        attention_mode="sampled", sample_seed=seed,
    )  # fmt: skip
    assert_same(pixels(result), stylize(load_model(), CONTENT, STYLE, attention="sampled", seed=seed))


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


# ---------------------------------------------------------------- refinement


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
            load_model(), CONTENT, [STYLE, OTHER], style_weights=[1, 2], strength=0.8, temperature=2.0,
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


# ---------------------------------------------------------------- masks


def masked(run: Callable[..., Any], mask: Tensor, **options: Any) -> Tensor:
    return pixels(
        run(
            "Stylize", model_name="built-in", content=image(CONTENT), style=image(STYLE), strength=1.0,
            content_mask=mask, **options,
        )
    )  # fmt: skip


def test_the_content_stays_where_the_mask_is_black(run: Callable[..., Any]) -> None:
    result, full = masked(run, LEFT), stylize(load_model(), CONTENT, STYLE)
    assert torch.equal(result[..., 36:], CONTENT[..., 36:])
    assert_same(result[..., :36], full[..., :36])
    assert torch.equal(masked(run, LEFT[None]), result)
    turned = masked(run, LEFT, mask_invert=True)
    assert torch.equal(turned[..., :36], CONTENT[..., :36])


def test_load_images_empty_mask_counts_as_no_mask(run: Callable[..., Any]) -> None:
    assert_same(masked(run, torch.zeros(1, 64, 64)), stylize(load_model(), CONTENT, STYLE))


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
    model = load_model()
    left = stylize(model, CONTENT, STYLE, style_masks=[halves[0]])
    assert float((result - left)[..., 40:].abs().mean()) > 1 / 255
    assert_same(pixels(run("Decode", decoder=decoder, fused=fused[0][0]))[..., :36], left[..., :36])
    one_node = masked(run, LEFT, style_mask=halves[0])
    assert_same(one_node[..., :36], left[..., :36])


# ---------------------------------------------------------------- errors: one line that says what to do


def features_of_another_encoder(run: Callable[..., Any], parts: tuple[Any, Any, Any], host: SimpleNamespace) -> None:
    save_model(small_model(), host.models / "other.safetensors")
    encoder = run("LoadEncoder", encoder_name="other.safetensors")
    content = run("ExtractFeatures", encoder=encoder, image=image(CONTENT))
    run("Apply", attention=parts[1], content=content, style=content, strength=1.0)


def decoder_of_another_model(run: Callable[..., Any], parts: tuple[Any, Any, Any], host: SimpleNamespace) -> None:
    save_model(small_model(), host.models / "other.safetensors")
    features = run("ExtractFeatures", encoder=parts[0], image=image(CONTENT))
    fused, _ = run("Apply", attention=parts[1], content=features, style=features, strength=1.0)
    run("Decode", decoder=run("LoadModel", model_name="other.safetensors")[2], fused=fused)


def decoded_over_too_many(run: Callable[..., Any], parts: tuple[Any, Any, Any], host: SimpleNamespace) -> None:
    features = run("ExtractFeatures", encoder=parts[0], image=image(picture(48, 72, batch=2)))
    fused, _ = run("Apply", attention=parts[1], content=features, style=features, strength=1.0)
    run("Decode", decoder=parts[2], fused=fused, content=image(picture(48, 72, batch=3)))


def mixed_contents(run: Callable[..., Any], parts: tuple[Any, Any, Any], host: SimpleNamespace) -> None:
    fused = []
    for one in (CONTENT, 1 - CONTENT):
        features = run("ExtractFeatures", encoder=parts[0], image=image(one))
        fused.append(run("Apply", attention=parts[1], content=features, style=features, strength=1.0)[0])
    run("MixStyles", fused_1=fused[0], fused_2=fused[1])


def corrupt_file(run: Callable[..., Any], parts: tuple[Any, Any, Any], host: SimpleNamespace) -> None:
    (host.models / "broken.safetensors").write_bytes(b"not weights")
    run("LoadModel", model_name="broken.safetensors")


def simple(**options: Any) -> Callable[..., None]:
    def call(run: Callable[..., Any], parts: tuple[Any, Any, Any], host: SimpleNamespace) -> None:
        inputs = {"model_name": "built-in", "content": image(CONTENT), "style": image(STYLE), "strength": 1.0}
        run("Stylize", **{**inputs, **options})

    return call


def refined_over_another_size(run: Callable[..., Any], parts: tuple[Any, Any, Any], host: SimpleNamespace) -> None:
    run("Refine", image=image(CONTENT), content=image(OTHER), style=image(STYLE))


def refined_with_too_many_styles(run: Callable[..., Any], parts: tuple[Any, Any, Any], host: SimpleNamespace) -> None:
    batch = picture(48, 72, batch=2)
    run("Refine", image=image(batch), content=image(CONTENT), style=image(picture(32, 32, batch=3)))


ERRORS: dict[str, tuple[Callable[..., None], str]] = {
    "encoder": (
        features_of_another_encoder,
        r"the content features come from the encoder other\.safetensors \([0-9a-f]{12}\), and the attention of "
        r"built-in reads only those of its own encoder, built-in \([0-9a-f]{12}\)\. Extract them with the encoder "
        r"that was loaded with the attention\.",
    ),
    "decoder": (
        decoder_of_another_model,
        r"this was painted by the attention built-in \([0-9a-f]{12}\), and the decoder is that of other\.safetensors "
        r"\([0-9a-f]{12}\)\. Use the decoder that was loaded with the attention\.",
    ),
    "content image": (
        decoded_over_too_many,
        r"the content image is 72x48 pixels, batch 3; the painting is 72x48 pixels, batch 2\. Give the content .*",
    ),
    "contents": (
        mixed_contents,
        r"painting 2 has another content than painting 1; .* Use the same content features .*",
    ),
    "refined content": (
        refined_over_another_size,
        r"the image to refine is 1 of 72x48 pixels, the content 1 of 48x32 pixels; give a result of that content",
    ),
    "refined styles": (
        refined_with_too_many_styles,
        r"3 styles came for 2 contents; give 1 style, or 2",
    ),
    "corrupt": (corrupt_file, r".*broken\.safetensors is truncated or no safetensors file\. Get it again, .*"),
    "missing": (
        simple(model_name="gone.safetensors"),
        r"gone\.safetensors is not in models/adaattn any more\. Press R and choose another, or put it back\.",
    ),
    "empty mask": (
        simple(content_mask=torch.zeros(48, 72)),
        r"the content mask is empty: nothing is left to paint\. .*",
    ),
    "empty style mask": (
        simple(style_mask=torch.zeros(45, 34)),
        r"the style mask is empty: no part of the style is left to look at\. Paint some of it white\.",
    ),
    "style batch": (
        simple(content=image(picture(48, 72, batch=3)), style=image(picture(45, 34, batch=2))),
        r"the style has 2 pictures and the content 3; give 1 style, or 3",
    ),
    "channels": (
        simple(style=torch.zeros(1, 45, 34, 2)),
        r"the style image has shape \(1, 45, 34, 2\); \(batch, height, width, 3\) is needed",
    ),
    "size": (
        simple(content=torch.zeros(1, 9, 12, 3)),
        r"the content is 12x9 pixels; at least 16x16 are needed\. Resize the picture first\.",
    ),
    "nan": (
        simple(content=image(CONTENT) * float("nan")),
        r"the content holds NaN or infinite values; numbers in \[0, 1\] are needed",
    ),
    "weights": (
        simple(style_weight=0.0),
        r"style weights are \[0\.0\]; they must not be negative, and one must be above 0",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_say_what_to_do(
    name: str, run: Callable[..., Any], parts: tuple[Any, Any, Any], host: SimpleNamespace
) -> None:
    call, text = ERRORS[name]
    try:
        with pytest.raises((ValueError, pack_module("adaattn_core.checkpoints.model_file").CheckpointError)) as caught:
            call(run, parts, host)
    finally:
        for path in host.models.iterdir():
            path.unlink()
    assert re.fullmatch(text, str(caught.value)), str(caught.value)


def test_an_encoder_of_the_same_weights_is_the_same_encoder(
    run: Callable[..., Any], parts: tuple[Any, Any, Any]
) -> None:
    encoder = run("LoadEncoder", encoder_name="built-in")
    features = run("ExtractFeatures", encoder=encoder, image=image(CONTENT))
    run("Apply", attention=parts[1], content=features, style=features, strength=1.0)


# ---------------------------------------------------------------- long work


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
    wanted = stylize(load_model(), content, STYLE)
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
    assert sizes == [4, 2, 1, 1, 1, 1]


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
    """The host's list holds no living model of ours once its sockets are gone."""
    for _ in range(2):
        parts = run("LoadModel", model_name="built-in")
        run("ExtractFeatures", encoder=parts[0], image=image(CONTENT))
        run("Stylize", model_name="built-in", content=image(CONTENT), style=image(STYLE), strength=1.0)
        run("Refine", image=image(CONTENT), content=image(CONTENT), style=image(STYLE), steps=1)
        del parts
    gc.collect()
    alive = [one for one in host.mm.current_loaded_models if one.model is not None]
    assert not alive, [type(one.model.model).__name__ for one in alive]
    pack = load_pack().__name__
    left = [x for x in gc.get_objects() if type(x).__module__ == f"{pack}.adaattn_core.models.encoder"]
    assert not left
