"""The page's arithmetic gives the numbers of the library. Runs the scripts in Node.js; no browser."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load
from torch import Tensor

from adaattn_core.demo.site import PHOTOS, PICTURE_FOLDER, STYLES, describe
from adaattn_core.inference.stages import extract_features, show_painted
from adaattn_core.models.model import StyleTransferModel
from adaattn_core.ops.color import keep_color
from adaattn_core.ops.resize import resize_image
from adaattn_core.viewer.view_data import overlaps, view_data, viewer_grid
from tests.export.test_onnx import CONFIGS, needs_onnx
from tests.export.test_staged import Painter, exact_files
from tests.helpers.small_models import picture, small_model

PAGE = Path(__file__).parents[2] / "adaattn_core" / "demo" / "page"
FLOAT = 1e-6
"""Rounding of float32 in sums of a few terms."""


@pytest.fixture(autouse=True)
def node() -> None:
    if shutil.which("node") is None:
        pytest.skip("needs Node.js: put `node` on the PATH to run the page's scripts")


def answer(folder: Path, module: str, expression: str, **values: Any) -> Any:
    """The value of an expression in JavaScript, which sees the exports of a module and `values`."""
    script = f"""import * as page from "{(PAGE / module).as_uri()}";
import {{ readFileSync }} from "node:fs";
const given = JSON.parse(readFileSync("{(folder / "values.json").as_posix()}"));
const plain = (key, value) => (ArrayBuffer.isView(value) ? [...value] : value);
console.log(JSON.stringify({expression}, plain));
"""
    arrays = {name: value.flatten().tolist() if hasattr(value, "flatten") else value for name, value in values.items()}
    (folder / "values.json").write_text(json.dumps(arrays), encoding="utf-8")
    (folder / "script.mjs").write_text(script, encoding="utf-8")
    result = subprocess.run(["node", str(folder / "script.mjs")], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


# ---------------------------------------------------------------- pixels


def test_pixels_become_planes_and_come_back(tmp_path: Path) -> None:
    pixels = [255, 0, 51, 255, 1, 2, 3, 255]
    planes, back = answer(
        tmp_path,
        "pixels.js",
        "[page.planesOf(given.pixels), page.pixelsOf(page.planesOf(given.pixels))]",
        pixels=pixels,
    )
    np.testing.assert_allclose(planes, np.array([255, 1, 0, 2, 51, 3]) / 255, rtol=FLOAT)
    assert back == pixels


def test_colours_are_kept_as_by_the_library(tmp_path: Path) -> None:
    painted, content = picture(9, 11), picture(9, 11, seed=1)
    arrays = "Float32Array.from(given.painted), Float32Array.from(given.content)"
    kept = answer(tmp_path, "pixels.js", f"page.keepColor({arrays})", painted=painted, content=content)
    torch.testing.assert_close(torch.tensor(kept), keep_color(painted, content).flatten(), rtol=0, atol=FLOAT)


def test_a_mask_shows_what_the_library_shows_and_outside_the_content_exactly(tmp_path: Path) -> None:
    painted, content = picture(6, 8), picture(6, 8, seed=1)
    mask = torch.tensor([0, 255, 128, 0, 1, 254] * 8)
    arrays = "Float32Array.from(given.painted), Float32Array.from(given.content), given.mask"
    shown = torch.tensor(
        answer(tmp_path, "pixels.js", f"page.masked({arrays})", painted=painted, content=content, mask=mask)
    )
    wanted = show_painted(painted, content, mask.reshape(1, 1, 6, 8) / 255, keep_color=False).flatten()
    torch.testing.assert_close(shown, wanted, rtol=0, atol=FLOAT)
    outside = (mask == 0).repeat(3)
    assert torch.equal(shown[outside], content.flatten()[outside])


@pytest.mark.parametrize(
    ("size", "side", "wanted"),
    [
        ((4000, 3000), 512, (683, 512)),
        ((3000, 4000), 512, (512, 683)),
        ((600, 400), 512, (600, 400)),  # never enlarged
        ((10_000, 10_000), 512, (512, 512)),
        ((8192, 16), 512, (8192, 16)),  # few pixels, and 16 are the least
        ((8192, 64), 128, (2290, 18)),  # sqrt(2.5 * 128**2 / (8192 * 64)) = 0.2795
    ],
)
def test_pictures_are_reduced_to_a_short_side_and_an_area(
    size: tuple[int, int], side: int, wanted: tuple[int, int], tmp_path: Path
) -> None:
    call = f"page.reducedSize({{ width: {size[0]}, height: {size[1]} }}, {side})"
    reduced = answer(tmp_path, "pixels.js", call)
    assert (reduced["width"], reduced["height"]) == wanted


@pytest.mark.parametrize("size", [(20, 31), (41, 17), (80, 60)], ids=["smaller", "narrower", "larger"])
def test_pictures_are_resized_as_by_the_library(size: tuple[int, int], tmp_path: Path) -> None:
    image = (picture(40, 62) * 255).round()
    pixels = torch.cat([image, torch.full_like(image[:, :1], 255)], dim=1)[0].permute(1, 2, 0)
    call = f"page.resized(given.pixels, {{ width: 62, height: 40 }}, {{ width: {size[1]}, height: {size[0]} }})"
    got = torch.tensor(answer(tmp_path, "pixels.js", call, pixels=pixels)).reshape(*size, 4)
    wanted = resize_image(image / 255, size=size)[0].permute(1, 2, 0) * 255
    torch.testing.assert_close(got[..., :3].float(), wanted, rtol=0, atol=0.501)  # rounded to 8 bits
    assert bool((got[..., 3] == 255).all())


def test_threads_are_as_many_as_cores_up_to_four_and_one_where_none_may_start(tmp_path: Path) -> None:
    counts = answer(tmp_path, "painter.js", "[1, 2, 4, 6, 8, 16, 64].map((cores) => page.threadCount(cores, true))")
    assert counts == [1, 2, 4, 4, 4, 8, 8]
    assert answer(tmp_path, "painter.js", "page.threadCount(8, false)") == 1


# ---------------------------------------------------------------- attention


@pytest.mark.parametrize(("cells", "positions", "step"), [(3, 2, 0.5), (2, 2, 16 / 17), (27, 32, 1 / 32)])
def test_positions_are_shared_out_as_by_the_library(cells: int, positions: int, step: float, tmp_path: Path) -> None:
    shares = answer(tmp_path, "attention.js", f"page.overlaps({cells}, {positions}, {step})")
    torch.testing.assert_close(torch.tensor(shares), overlaps(cells, positions, step), rtol=0, atol=FLOAT)


@pytest.mark.parametrize("size", [(512, 512), (400, 600), (600, 400), (16, 8192), (16, 16)])
def test_the_grid_is_that_of_the_library(size: tuple[int, int], tmp_path: Path) -> None:
    grid = answer(tmp_path, "attention.js", f"page.grid({{ height: {size[0]}, width: {size[1]} }})")
    assert (grid["rows"], grid["columns"]) == viewer_grid(torch.empty(1, 3, *size), 729)


@needs_onnx
def test_the_viewer_gets_the_tables_of_the_library(tmp_path: Path) -> None:
    model = small_model(config=CONFIGS["built-in"])
    content, style = picture(45, 70), picture(60, 41, seed=1)
    outputs = Painter(exact_files(model)).attend(content, style)
    arrays = {name: torch.from_numpy(outputs[name]) for name in outputs if name.endswith(("_query", "_key"))}
    sizes = [f'{{ height: {image.shape[2]}, width: {image.shape[3]}, title: "" }}' for image in (content, style)]
    typed = "Object.fromEntries(Object.entries(given).map(([name, list]) => [name, Float32Array.from(list)]))"
    call = f"page.viewData({sizes[0]}, {sizes[1]}, {json.dumps(describe(model)['levels'])}, {typed})"
    got = answer(tmp_path, "attention.js", call, **arrays)
    data, about = library_data(model, content, style)
    assert about == {**got["description"], "levels": about["levels"], "temperature": 1.0}
    for level in model.config.levels:
        for name, step in ((f"largest.{level}", 1e-5), (f"entropy.{level}", 1e-4), (f"weights.{level}", 1.0)):
            wanted = data[name].flatten().float()
            torch.testing.assert_close(
                torch.tensor(got["tensors"][name]).float(), wanted, rtol=1e-3, atol=step, msg=name
            )


def library_data(model: StyleTransferModel, content: Tensor, style: Tensor) -> tuple[dict[str, Tensor], Any]:
    """Tensors and description of `view_data`."""
    seen, looked_at = (extract_features(model.encoder, image) for image in (content, style))
    data = view_data(model.fusion, seen, looked_at, model.config.encoder_convs)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return load(data), json.loads(header["__metadata__"]["view"])


# ---------------------------------------------------------------- what the page may do


def test_the_page_asks_no_other_address() -> None:
    """All that it loads has a relative address; the attention viewer's scripts are checked by its own tests."""
    for path in PAGE.iterdir():
        source = path.read_text(encoding="utf-8")
        assert "http:" not in source and "https:" not in source, path.name


def test_every_picture_of_the_page_is_an_example_with_a_known_source() -> None:
    with (PAGE.parents[2] / "examples" / "SOURCES.csv").open(encoding="utf-8", newline="") as file:
        titles = {Path(row["file"]).stem: row["title"] for row in csv.DictReader(file)}
    names = sorted(path.stem for path in PICTURE_FOLDER.iterdir())
    assert names == sorted([*STYLES, *PHOTOS])
    for name, title in {**STYLES, **PHOTOS}.items():
        assert title.split(", ")[-1] in titles[name], "the work, or who took the photo"


def test_no_text_becomes_markup() -> None:
    for path in PAGE.glob("*.js"):
        source = path.read_text(encoding="utf-8")
        assert not any(word in source for word in ("innerHTML", "insertAdjacentHTML", "eval(", "document.write")), path


def test_scripts_are_small() -> None:
    long = [path.name for path in PAGE.iterdir() if len(path.read_text(encoding="utf-8").splitlines()) > 400]
    assert long == []
