"""A workflow file, as ComfyUI's page saves it, turned into the graph that the API takes: what the page does on Run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.comfyui.host import Prompt, with_defaults

NOTES = ("Note", "MarkdownNote")
MUTED, BYPASSED = 2, 4
SAMPLING = ("CheckpointLoaderSimple", "CLIPTextEncode", "EmptyLatentImage", "KSampler", "VAEDecode", "VAEEncode")
AFTER_SEED = ("fixed", "increment", "decrement", "randomize")
"""Values of the extra widget that the page puts below a seed and does not send."""

Node = Mapping[str, Any]


def load(path: Path) -> dict[str, Any]:
    workflow: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return workflow


def as_prompt(workflow: Mapping[str, Any], info: Mapping[str, Any]) -> Prompt:
    """The prompt of a workflow. Subgraphs are flatten: their nodes get the id `outer:inner`, as the page names them.

    Muted and bypassed nodes are none of ours and refused.

    Args:
        info: the host's schemas; an input that is younger than the workflow has its default.
    """
    subgraphs = {graph["id"]: graph for graph in (workflow.get("definitions") or {}).get("subgraphs", [])}
    flat = _Flat(subgraphs)
    flat.add(workflow["nodes"], {entry[0]: tuple(entry[1:5]) for entry in workflow["links"]}, "", {})
    graph = {
        node: (kind, {name: value for name, value in flat.resolved(entry["inputs"]).items() if _has(info[kind], name)})
        for node, entry in flat.prompt.items()
        for kind in [entry["class_type"]]
    }
    return with_defaults(info, graph)


def _has(schema: Mapping[str, Any], name: str) -> bool:
    """Whether a host that is older than the workflow has the part of an input, such as `format.codec`, by itself."""
    parent, _, part = name.partition(".")
    entry = {**schema["input"].get("required", {}), **schema["input"].get("optional", {})}.get(parent, [""])
    return not part or str(entry[0]).startswith("COMFY_")


class _Flat:
    """Nodes of all levels under one roof. A link is a key until all nodes are in: (prefix + node id, output)."""

    def __init__(self, subgraphs: Mapping[str, Any]) -> None:
        self.subgraphs = subgraphs
        self.prompt: Prompt = {}
        self.inner: dict[tuple[str, int], tuple[str, int]] = {}

    def add(self, nodes: list[Any], links: Mapping[int, tuple[Any, ...]], prefix: str, outside: dict[int, Any]) -> None:
        for node in nodes:
            if node["type"] in NOTES:
                continue
            assert node.get("mode", 0) not in (MUTED, BYPASSED), f"node {node['id']} is muted or bypassed"
            name = f"{prefix}{node['id']}"
            inputs = dict(self._inputs(node, links, prefix, outside))
            if node["type"] in self.subgraphs:
                self._enter(self.subgraphs[node["type"]], name, inputs)
            else:
                self.prompt[name] = {"class_type": node["type"], "inputs": inputs}

    def _inputs(
        self, node: Node, links: Mapping[int, tuple[Any, ...]], prefix: str, outside: Mapping[int, Any]
    ) -> Iterator[tuple[str, Any]]:
        values = dict(widget_values(node))
        for entry in node.get("inputs", []):
            name, link = entry["name"], entry.get("link")
            if link is not None:
                origin, output = links[link][:2]
                source = outside.get(output) if origin == -10 else (f"{prefix}{origin}", output)
                if source is not None:
                    yield name, source
                    continue
            if name in values:
                yield name, values[name]

    def _enter(self, graph: Mapping[str, Any], name: str, inputs: Mapping[str, Any]) -> None:
        links = {
            one["id"]: (one["origin_id"], one["origin_slot"], one["target_id"], one["target_slot"])
            for one in graph["links"]
        }
        outside = {slot: inputs.get(entry["name"]) for slot, entry in enumerate(graph["inputs"])}
        self.add(graph["nodes"], links, f"{name}:", outside)
        for origin, output, target, slot in links.values():
            if target == -20:
                self.inner[name, slot] = (f"{name}:{origin}", output)

    def resolved(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self._resolve(value) if isinstance(value, tuple) else value for name, value in inputs.items()}

    def _resolve(self, source: tuple[str, int]) -> list[Any]:
        while source in self.inner:
            source = self.inner[source]
        return list(source)


def connected(workflow: Mapping[str, Any], nodes: list[Node], links: list[tuple[int, str, int, str]]) -> dict[str, Any]:
    """A workflow with more nodes and links in it.

    Args:
        links: from node, output name, to node, input name.
    """
    made: dict[str, Any] = json.loads(json.dumps({**workflow, "nodes": [*workflow["nodes"], *nodes]}))
    by_id = {node["id"]: node for node in made["nodes"]}
    for number, (origin, output, target, name) in enumerate(links, start=made["last_link_id"] + 1):
        out_slot = _slot(by_id[origin]["outputs"], output)
        in_slot = _slot(by_id[target]["inputs"], name)
        source, sink = by_id[origin]["outputs"][out_slot], by_id[target]["inputs"][in_slot]
        source["links"] = [*(source.get("links") or []), number]
        sink["link"] = number
        made["links"].append([number, origin, out_slot, target, in_slot, source["type"]])
    made["last_link_id"] += len(links)
    made["last_node_id"] = max(by_id)
    return made


def _slot(slots: list[Any], name: str) -> int:
    return [slot["name"] for slot in slots].index(name)


def without_sampler(prompt: Prompt, still: Prompt) -> Prompt:
    """A prompt whose diffusion samplers are taken out, so that it runs without a checkpoint.

    What a sampler painted out of noise becomes the still; what it refined stays as it was before.

    Args:
        still: one node, which shows a picture at its first output.
    """
    (name,) = still
    if not any(entry["class_type"] in SAMPLING for entry in prompt.values()):
        return prompt

    def source(link: list[Any]) -> list[Any]:
        node = prompt[link[0]]
        inputs = node["inputs"]
        match node["class_type"]:
            case "VAEDecode" | "KSampler":
                return source(inputs.get("samples") or inputs["latent_image"])
            case "VAEEncode":
                return source(inputs["pixels"])
            case "EmptyLatentImage":
                return [name, 0]
        return link

    rewired = {
        node: {**entry, "inputs": {key: source(v) if _is_link(v) else v for key, v in entry["inputs"].items()}}
        for node, entry in prompt.items()
        if entry["class_type"] not in SAMPLING
    }
    return {**rewired, **still}


def _is_link(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[1], int)


def widget_values(node: Node) -> Iterator[tuple[str, Any]]:
    """Names and values of a node's widgets, in the order of its inputs."""
    values = list(node.get("widgets_values") or [])
    for entry in node.get("inputs", []):
        if "widget" not in entry:
            continue
        assert values, f"node {node['id']} ({node['type']}) has no value for its input {entry['name']}"
        yield entry["name"], values.pop(0)
        if "seed" in entry["name"] and values and values[0] in AFTER_SEED:
            values.pop(0)
    assert not values, f"node {node['id']} ({node['type']}) has values {values} that belong to no input"
