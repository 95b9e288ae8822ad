"""Schemas of the nodes in ComfyUI: ids, sockets, defaults and explanations."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from adaattn_core import save_model
from tests.helpers.comparison import assert_same
from tests.helpers.node_images import CONTENT, STYLE, image
from tests.helpers.small_models import small_model

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
            "every_style": "BOOLEAN",
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
    "AdaAttN_ExampleClip": ({"clip": "COMBO"}, ["VIDEO"]),
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
            "every_style": "BOOLEAN",
            "stroke_size": "FLOAT",
            "regions": "ADAATTN_REGIONS",
        },
        ["IMAGE"],
    ),
    "AdaAttN_StyleRegion": (
        {
            "style": "IMAGE",
            "mask": "MASK",
            "mask_invert": "BOOLEAN",
            "mask_feather": "INT",
            "style_mask": "MASK",
            "weight": "FLOAT",
            "previous": "ADAATTN_REGIONS",
        },
        ["ADAATTN_REGIONS"],
    ),
    "AdaAttN_StylizeVideo": (
        {
            "model_name": "COMBO",
            "content": "IMAGE,VIDEO",
            "style": "IMAGE",
            "strength": "FLOAT",
            "steady": "FLOAT",
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
            "fps": "FLOAT",
        },
        ["IMAGE", "VIDEO"],
    ),
}
"""Ids, inputs in their order (saved workflows keep widget values by position) and outputs: for ever."""


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
    assert required["AdaAttN_StyleRegion"] == ["style", "mask"]
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
    assert listed() == ["base (built in)", "compact (built in)", "built-in"]
    os.utime(host.models, (1, 1))  # the host looks at the folder's time, which may not tick between two tests
    save_model(small_model(), path)
    assert listed() == ["base (built in)", "compact (built in)", "built-in", "mine.safetensors"]
    os.utime(host.models, (2, 2))
    path.unlink()
    assert listed() == ["base (built in)", "compact (built in)", "built-in"]


SHOWN = {
    "AdaAttN_Stylize": ["model_name", "strength", "keep_color", "stroke_size"],
    "AdaAttN_StylizeVideo": ["model_name", "strength", "steady", "keep_color"],
    "AdaAttN_StyleRegion": ["mask_invert", "mask_feather"],
    "AdaAttN_Apply": ["strength"],
    "AdaAttN_Refine": ["steps", "keep_color"],
    "AdaAttN_AttentionMap": ["x", "y", "level"],
}
"""Widgets that the page shows before a person asks for the advanced ones."""


def widgets(host: SimpleNamespace, name: str) -> list[Any]:
    kinds = ("INT", "FLOAT", "BOOLEAN", "COMBO")
    return [one for one in host.nodes[name].GET_SCHEMA().inputs if str(one.get_io_type()) in kinds]


@pytest.mark.parametrize("name", SHOWN)
def test_few_widgets_are_shown_until_more_are_asked_for(host: SimpleNamespace, name: str) -> None:
    if not hasattr(widgets(host, name)[0], "advanced"):
        pytest.skip("this ComfyUI knows no advanced inputs and shows all; a newer COMFYUI_PATH runs this")
    assert [one.id for one in widgets(host, name) if not one.advanced] == SHOWN[name]


MASKS = ["content_mask", "mask_invert", "mask_feather", "mask_threshold", "style_mask"]


@pytest.mark.parametrize("name", ["AdaAttN_Stylize", "AdaAttN_StylizeVideo", "AdaAttN_Apply"])
def test_masks_stand_together_after_pictures_and_strength(host: SimpleNamespace, name: str) -> None:
    """Style slots stay fixed inputs: an input of ComfyUI's Autogrow has another id, and old links to style_2 break."""
    inputs = [one.id for one in host.nodes[name].GET_SCHEMA().inputs]
    start = inputs.index(MASKS[0])
    assert inputs[start : start + len(MASKS)] == MASKS
    assert {"content", "style", "strength"} <= set(inputs[:start])


FIRST = {
    "AdaAttN_Stylize": [
        "model_name", "strength", "style_size", "keep_color", "mask_invert", "mask_feather", "mask_threshold",
        "style_weight", "style_2_weight", "style_3_weight", "style_4_weight", "temperature", "attention_mode",
        "sample_seed",
    ],
    "AdaAttN_Apply": [
        "strength", "mask_invert", "mask_feather", "mask_threshold", "temperature", "attention_mode", "sample_seed",
    ],
    "AdaAttN_AttentionMap": ["x", "y", "level", "opacity", "temperature"],
}  # fmt: skip
"""Widgets of version 0.1.0 in their order."""
LATER = {
    "AdaAttN_Stylize": ["refine_steps", "every_style", "stroke_size"],
    "AdaAttN_Apply": ["every_style"],
    "AdaAttN_AttentionMap": [],
}
"""Widgets that were added since, one after the other: a workflow may have been saved after each of them."""


@pytest.mark.parametrize("name", FIRST)
def test_values_of_saved_workflows_stay_in_place(host: SimpleNamespace, name: str) -> None:
    """The page gives saved values to widgets by position, whether they are folded away or not."""
    now = [one.id for one in widgets(host, name)]
    for count in range(len(LATER[name]) + 1):
        saved = [*FIRST[name], *LATER[name][:count]]
        assert now[: len(saved)] == saved
    assert now == saved
