"""Graphs that several tests run: small pictures, so that a run takes a second or two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.comfyui.host import ROOT, Prompt, link, with_defaults
from tests.comfyui.workflow import connected, load

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


def with_mask(info: Info, prompt: Prompt, node: str, name: str, value: float) -> Prompt:
    """A graph with a mask of one grey connected to an input."""
    mask = with_defaults(info, {"mask": ("SolidMask", {"value": value, "width": 100, "height": 80})})
    return {**changed(prompt, node, **{name: link("mask")}), **mask}


BLUEPRINT = ROOT / "subgraphs" / "AdaAttN Subject and Background.json"
CONTENT, SUBJECT_STYLE, BACKGROUND_STYLE, SAVE = 2, 3, 4, 5
PICTURES = {CONTENT: "astronaut", SUBJECT_STYLE: "auvers", BACKGROUND_STYLE: "great_wave"}
WIDGETS = (("picture", "COMBO"), ("frames", "INT"))
OUTPUTS = (("image", "IMAGE"), ("subject", "MASK"))


def blueprint_graph() -> dict[str, Any]:
    """A workflow with the blueprint, its three pictures and a place for the result."""

    def node(number: int, kind: str, place: tuple[int, int], size: tuple[int, int], **more: Any) -> dict[str, Any]:
        """With all that a page writes into its files, and old ones refuse a file without."""
        return {"id": number, "type": kind, "pos": list(place), "size": list(size), "flags": {}, "order": number - 1,
                "mode": 0, "inputs": [], "outputs": [], "properties": {}, "widgets_values": [], **more}  # fmt: skip

    def picture(number: int, name: str) -> dict[str, Any]:
        widgets = [{"name": key, "type": kind, "widget": {"name": key}, "link": None} for key, kind in WIDGETS]
        outputs = [{"name": key, "type": kind, "links": []} for key, kind in OUTPUTS]
        return node(number, "AdaAttN_ExamplePicture", (-400, 400 * (number - 2)), (270, 330), inputs=widgets,
                    outputs=outputs, widgets_values=[name, 1])  # fmt: skip

    images = {"name": "images", "type": "IMAGE", "link": None}
    save = node(SAVE, "PreviewImage", (450, 0), (400, 400), inputs=[images])
    blueprint = load(BLUEPRINT)
    (outer,) = blueprint["nodes"]
    return connected(
        blueprint,
        [
            picture(CONTENT, "astronaut"),
            picture(SUBJECT_STYLE, "auvers"),
            picture(BACKGROUND_STYLE, "great_wave"),
            save,
        ],
        [
            (CONTENT, "image", outer["id"], "content"),
            (CONTENT, "subject", outer["id"], "subject"),
            (SUBJECT_STYLE, "image", outer["id"], "subject_style"),
            (BACKGROUND_STYLE, "image", outer["id"], "background_style"),
            (outer["id"], "image", SAVE, "images"),
        ],
    )
