"""The subgraph blueprint: offered by the host, and painting when it is put into a graph."""

from __future__ import annotations

import json
import urllib.error
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.comfyui.conditions import require_checkout
from tests.comfyui.graphs import changed
from tests.comfyui.host import PACK_NAME, ROOT, Host, Picture, Prompt
from tests.comfyui.workflow import as_prompt, connected, load

require_checkout()

FILE = ROOT / "subgraphs" / "AdaAttN Subject and Background.json"
CONTENT, SUBJECT_STYLE, BACKGROUND_STYLE, SAVE = 2, 3, 4, 5
PICTURES = {CONTENT: "astronaut", SUBJECT_STYLE: "auvers", BACKGROUND_STYLE: "great_wave"}
WIDGETS = (("picture", "COMBO"), ("frames", "INT"))
OUTPUTS = (("image", "IMAGE"), ("subject", "MASK"))


def around_it() -> dict[str, Any]:
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
    blueprint = load(FILE)
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


def test_the_host_offers_the_blueprint(host: Host) -> None:
    try:
        offered = host.get("/global_subgraphs")
    except urllib.error.HTTPError as error:
        error.close()
        pytest.skip("this ComfyUI has no blueprints")
    ours = {key: entry for key, entry in offered.items() if entry["info"]["node_pack"].endswith(PACK_NAME)}
    assert [entry["name"] for entry in ours.values()] == [FILE.stem]
    (key,) = ours
    assert json.loads(host.get(f"/global_subgraphs/{key}")["data"]) == load(FILE)


def test_the_blueprint_paints_subject_and_background_apart(host: Host, info: dict[str, Any]) -> None:
    """Another style for the background changes the background, and the subject hardly: where the two meet."""
    graph = as_prompt(around_it(), info)
    one = _painted(host, graph)
    other = _painted(host, changed(graph, str(BACKGROUND_STYLE), picture="composition_viii"))
    with Image.open(ROOT / "examples" / "masks" / "astronaut.png") as mask:
        subject = np.asarray(mask.convert("L"))
    change = np.abs(one.astype(float) - other.astype(float)).mean(axis=-1)
    assert one.shape[:2] == subject.shape
    assert change[subject == 0].mean() > 8
    assert change[subject == 255].mean() < change[subject == 0].mean() / 4


def _painted(host: Host, graph: Prompt) -> Picture:
    return host.picture(host.paint(graph), str(SAVE))
