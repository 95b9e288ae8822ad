"""The subgraph blueprint: offered by the host, and painting when it is put into a graph."""

from __future__ import annotations

import json
import urllib.error
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.comfyui.conditions import require_checkout
from tests.comfyui.graphs import BACKGROUND_STYLE, BLUEPRINT, SAVE, blueprint_graph, changed
from tests.comfyui.host import PACK_NAME, ROOT, Host, Picture, Prompt
from tests.comfyui.workflow import as_prompt, load

require_checkout()


def test_the_host_offers_the_blueprint(host: Host) -> None:
    try:
        offered = host.get("/global_subgraphs")
    except urllib.error.HTTPError as error:
        error.close()
        pytest.skip("this ComfyUI has no blueprints")
    ours = {key: entry for key, entry in offered.items() if entry["info"]["node_pack"].endswith(PACK_NAME)}
    assert [entry["name"] for entry in ours.values()] == [BLUEPRINT.stem]
    (key,) = ours
    assert json.loads(host.get(f"/global_subgraphs/{key}")["data"]) == load(BLUEPRINT)


def test_the_blueprint_paints_subject_and_background_apart(host: Host, info: dict[str, Any]) -> None:
    """Another style for the background changes the background, and the subject hardly: where the two meet."""
    graph = as_prompt(blueprint_graph(), info)
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
