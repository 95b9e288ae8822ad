"""Graphs that several tests run: small pictures, so that a run takes a second or two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.comfyui.host import Prompt, link, with_defaults

Info = Mapping[str, Any]
PICTURE = "AdaAttNProbe_Picture"


def stylize_graph(info: Info, *, content: Mapping[str, Any] | None = None, **inputs: Any) -> Prompt:
    """content, style -> stylize -> save, in one node."""
    graph: dict[str, tuple[str, Mapping[str, Any]]] = {
        "content": (PICTURE, content or {}),
        "style": (PICTURE, {"seed": 1}),
        "stylize": ("AdaAttN_Stylize", {"content": link("content"), "style": link("style"), **inputs}),
        "save": ("PreviewImage", {"images": link("stylize")}),
    }
    return with_defaults(info, graph)


def parts_graph(
    info: Info,
    *,
    content: Mapping[str, Any] | None = None,
    style: Mapping[str, Any] | None = None,
    **apply: Any,
) -> Prompt:
    """The same from separate nodes: model; content, style and the features of each; apply; decode; save."""
    graph: dict[str, tuple[str, Mapping[str, Any]]] = {
        "model": ("AdaAttN_LoadModel", {}),
        "content": (PICTURE, content or {}),
        "style": (PICTURE, style or {"seed": 1}),
        "content_features": ("AdaAttN_ExtractFeatures", {"encoder": link("model"), "image": link("content")}),
        "style_features": ("AdaAttN_ExtractFeatures", {"encoder": link("model"), "image": link("style")}),
        "apply": (
            "AdaAttN_Apply",
            {
                "attention": link("model", 1),
                "content": link("content_features"),
                "style": link("style_features"),
                **apply,
            },
        ),
        "decode": ("AdaAttN_Decode", {"decoder": link("model", 2), "fused": link("apply")}),
        "save": ("PreviewImage", {"images": link("decode")}),
    }
    return with_defaults(info, graph)


def changed(prompt: Prompt, node: str, **inputs: Any) -> Prompt:
    """The same graph with other inputs of one node."""
    entry = prompt[node]
    return {**prompt, node: {**entry, "inputs": {**entry["inputs"], **inputs}}}
