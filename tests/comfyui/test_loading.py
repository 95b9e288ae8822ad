"""The pack as a host of today, or of a year ago, loads it."""

from __future__ import annotations

import json
import urllib.parse
from typing import Any

import pytest

from tests.comfyui.conditions import require_checkout
from tests.comfyui.host import PACK_NAME, ROOT, Host

require_checkout()

IDS = {
    "AdaAttN_LoadEncoder": ["ADAATTN_ENCODER"],
    "AdaAttN_LoadModel": ["ADAATTN_ENCODER", "ADAATTN_ATTENTION", "ADAATTN_DECODER"],
    "AdaAttN_ExtractFeatures": ["ADAATTN_FEATURES"],
    "AdaAttN_Apply": ["ADAATTN_FUSED", "MASK"],
    "AdaAttN_Decode": ["IMAGE"],
    "AdaAttN_Refine": ["IMAGE"],
    "AdaAttN_MixStyles": ["ADAATTN_FUSED"],
    "AdaAttN_AttentionMap": ["IMAGE"],
    "AdaAttN_Stylize": ["IMAGE"],
    "AdaAttN_StylizeVideo": ["IMAGE", "VIDEO"],
    "AdaAttN_StyleRegion": ["ADAATTN_REGIONS"],
    "AdaAttN_ExamplePicture": ["IMAGE", "MASK"],
    "AdaAttN_ExampleClip": ["VIDEO"],
}
"""Nodes and what they give. Ids are for ever: workflows out there name them."""

TROUBLE = ("error", "traceback", "import failed", "warning: ", "deprecat")


def inputs_of(schema: dict[str, Any]) -> dict[str, Any]:
    return {**schema["input"].get("required", {}), **schema["input"].get("optional", {})}


def test_the_host_has_nothing_to_complain_of(host: Host) -> None:
    lines = [line for line in host.start_log.splitlines() if PACK_NAME in line.lower()]
    assert any(str(host.pack) in line for line in lines), "the pack is not among the loaded ones"
    assert [line for line in lines if any(word in line.lower() for word in TROUBLE)] == []


def test_every_node_is_there_with_its_outputs(info: dict[str, Any]) -> None:
    ours = {name: schema["output"] for name, schema in info.items() if name.startswith("AdaAttN_")}
    assert {name: ours.get(name) for name in IDS} == IDS


@pytest.mark.parametrize("node", IDS)
def test_every_input_and_output_is_explained(info: dict[str, Any], node: str) -> None:
    schema = info[node]
    assert schema["description"] and schema["display_name"] and schema["category"] == "AdaAttN"
    silent = [name for name, entry in inputs_of(schema).items() if not entry[1].get("tooltip")]
    assert silent == []
    assert all(schema["output_tooltips"]) and len(schema["output_tooltips"]) == len(schema["output"])


@pytest.mark.parametrize("node", IDS)
def test_every_number_has_a_range_and_a_step(info: dict[str, Any], node: str) -> None:
    numbers = {name: entry[1] for name, entry in inputs_of(info[node]).items() if entry[0] in ("INT", "FLOAT")}
    bare = [name for name, options in numbers.items() if not {"default", "min", "max", "step"} <= set(options)]
    assert bare == []


def test_the_page_gets_the_script_and_the_help(host: Host) -> None:
    scripts = [name for name in host.get("/extensions") if f"/{PACK_NAME}/" in name]
    assert scripts, "no script of the pack is loaded into the page"
    assert len(scripts) == len(set(scripts))
    for name in scripts:
        assert host.fetch(name)


def test_templates_and_thumbnails_are_served(host: Host) -> None:
    names = host.get("/workflow_templates")[PACK_NAME]
    assert sorted(names) == sorted(path.stem for path in (ROOT / "example_workflows").glob("*.json"))
    for name in names:
        address = f"/api/workflow_templates/{PACK_NAME}/{urllib.parse.quote(name)}"
        assert json.loads(host.fetch(f"{address}.json"))["nodes"]
        assert host.fetch(f"{address}.jpg")[:2] == b"\xff\xd8"
