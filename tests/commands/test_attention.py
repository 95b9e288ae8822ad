"""`adaattn attention`: the page that it writes, and wrong input in one line."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load

from adaattn_core import load_image, load_model
from adaattn_core.inference.attention_map import attention_map
from adaattn_core.inference.stages import extract_features
from adaattn_core.viewer.view_data import dequantize
from tests.commands.conftest import Complain
from tests.helpers.command_line import MODEL, OIL, run


def data_of(page: Path) -> bytes:
    (text,) = re.findall(r'id="data">([^<]*)<', page.read_text(encoding="utf-8"))
    return base64.b64decode(text)


def test_the_page_holds_the_attention_of_the_pictures(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(f"attention photos/sea.png {OIL} -o view.html --temperature 0.5")
    assert re.fullmatch(r"view\.html  \d\.\d MB  \d+\.\d s\n", capsys.readouterr().out)
    tensors = load(data_of(folder / "view.html"))
    model = load_model("m.safetensors")
    content, style = (
        extract_features(model.encoder, load_image(path)) for path in ("photos/sea.png", "paintings/oil.png")
    )
    grid = 10, 14  # of a picture of 40 x 56, as of the style's of 48 x 32, no side of a rectangle is under 4 pixels
    point = 3 * grid[1] + 5
    wanted = attention_map(model.fusion, content, style, (5.5 / 14, 3.5 / 10), "relu3_1", 0.5).flatten()
    shown = dequantize(tensors["weights.relu3_1"], tensors["largest.relu3_1"])[point]
    torch.testing.assert_close(shown, wanted, rtol=0, atol=float(wanted.max()) / 255)


def test_pictures_are_resized_as_by_stylize(folder: Path) -> None:
    """The content to the short side of --size, the style only if it is larger."""
    run(f"attention photos/sea.png {OIL} -o view.html --size 20 --style-size 24")
    data = data_of(folder / "view.html")
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    view = json.loads(header["__metadata__"]["view"])
    assert (view["content"]["height"], view["content"]["width"]) == (20, 28)
    assert (view["style"]["height"], view["style"]["width"]) == (36, 24)
    assert (view["content"]["title"], view["style"]["title"]) == ("sea.png", "oil.png")


ERRORS = {
    "attention sea.png --style style.png -o out/view.png": "out/view.png does not end in .html; the output is a page "
    "for a browser. Name it view.html.",
    "attention sea.png --style style.png -o no/view.html": "no is not a folder, so the output cannot be written there. "
    "Create the folder first.",
    "attention . --style style.png -o out/view.html": ". holds 2 pictures; one content is needed. Name the picture.",
    "attention sea.png --style . -o out/view.html": "--style . holds 2 pictures; one picture is needed. Name the "
    "pictures.",
    "attention gone.png --style style.png -o out/view.html": "gone.png",
    "attention sea.png --style style.png -o out/view.html --temperature 0": "argument --temperature: 0 is out of range",
}


@pytest.mark.parametrize("line", ERRORS)
def test_wrong_input_is_one_line(complain: Complain, line: str) -> None:
    assert ERRORS[line] in complain(f"{line} {MODEL}")
