"""The attention viewer in the node, in a real browser: its numbers are the library's, and it behaves in the graph.

Screenshots go to the folder SHOTS, for somebody to look at; without it, to pytest's own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adaattn_core import load_image, load_model
from adaattn_core.inference.attention_map import PointAttention
from adaattn_core.inference.stages import extract_features
from adaattn_core.viewer.view_data import level_table, viewer_grid
from tests.comfyui.conditions import require_browser, require_checkout
from tests.comfyui.host import ROOT, Host
from tests.comfyui.workflow import load

require_checkout()
require_browser()

from tests.comfyui.browser import NODES_2, Desk, desk  # noqa: E402 (needs playwright, which the line above asks for)
from tests.comfyui.viewer import Viewer, contrast  # noqa: E402 (the same)

EXAMPLE = ROOT / "example_workflows" / "08_where_the_attention_looks.json"
KIND = "AdaAttN_AttentionMap"
LEVELS = ("relu3_1", "relu4_1", "relu5_1")


@pytest.fixture(scope="module")
def page(host: Host) -> Iterator[Desk]:
    with desk(host) as opened:
        yield opened


@pytest.fixture(scope="session")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(os.environ.get("SHOTS") or tmp_path_factory.mktemp("shots"))


@pytest.fixture(scope="module", params=["classic", "nodes_2"])
def renderer(request: pytest.FixtureRequest, page: Desk) -> Iterator[str]:
    """Each of the two ways in which the page draws nodes; the example is on it and has run."""
    chosen = str(request.param)
    if chosen == "nodes_2" and page.version < NODES_2:
        pytest.skip(f"Nodes 2.0 of page {page.version} is a draft")
    page.set("Comfy.VueNodes.Enabled", chosen == "nodes_2")
    try:
        page.load(load(EXAMPLE))
        Viewer(page).run()
        yield chosen
    finally:
        page.set("Comfy.VueNodes.Enabled", False)


@pytest.fixture
def viewer(page: Desk, renderer: str) -> Viewer:
    """The viewer in the middle of the page, without pins."""
    shown = Viewer(page)
    shown.ask("shadow.querySelectorAll('.chip').forEach(chip => chip.click())")
    shown.press("[data-tab=mean]")
    shown.center()
    return shown


@pytest.fixture(scope="module")
def tables() -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """Level -> weights of the example's pictures as the library computes them: (points, cells)."""
    model = load_model("compact")
    content, style = (
        extract_features(model.encoder, load_image(ROOT / "examples" / f"{name}.jpg"))
        for name in ("ramparts", "auvers")
    )
    points, cells = (viewer_grid(one.picture, 729) for one in (content, style))
    return {
        level: level_table(
            PointAttention(model.fusion, content, style, level), points, cells, style.picture
        ).weights.numpy()
        for level in LEVELS
    }


def weights(viewer: Viewer) -> np.ndarray[Any, np.dtype[np.float64]]:
    """What the viewer has for the place under the pointer."""
    return np.array(viewer.ask("[...element.viewer.weights]"))


GRID = 21, 34  # of the content of 357 x 604, and 24 x 30 of the style of 465 x 594
STYLE_GRID = 24, 30


def test_hovering_shows_the_weights_of_the_library(
    viewer: Viewer, tables: dict[str, np.ndarray[Any, np.dtype[np.float32]]], shots: Path, renderer: str
) -> None:
    """Within the step of 8 bits, for every tab; and what is drawn is darkest where the weight is least."""
    mean = np.mean([tables[level] for level in LEVELS], axis=0)
    assert mean.shape == (GRID[0] * GRID[1], STYLE_GRID[0] * STYLE_GRID[1])
    for row, column in ((2, 5), (10, 17), (20, 33)):
        place = (column + 0.5) / GRID[1], (row + 0.5) / GRID[0]
        point = row * GRID[1] + column
        for tab, table in {"mean": mean, **tables}.items():
            viewer.press(f"[data-tab={tab}]")
            viewer.hover("content", *place)
            wanted, shown = table[point], weights(viewer)
            largest = max(tables[level][point].max() for level in (LEVELS if tab == "mean" else (tab,)))
            assert np.abs(shown - wanted).max() <= largest / 255 + 1e-5, (tab, row, column)
            dark = viewer.darkness("style").flatten()
            assert np.all(np.diff(dark[np.argsort(shown)]) <= 0), (tab, row, column)
            assert dark.min() < 0.01 and dark.max() > 0.99, (tab, row, column)
            assert viewer.darkness("content").max() == 0
    viewer.desk.shot(shots / f"viewer_hover_{renderer}.png")


def test_a_place_of_the_style_shows_where_it_is_used(
    viewer: Viewer, tables: dict[str, np.ndarray[Any, np.dtype[np.float32]]], shots: Path, renderer: str
) -> None:
    viewer.press("[data-tab=relu4_1]")
    row, column = 4, 10
    viewer.hover("style", (column + 0.5) / STYLE_GRID[1], (row + 0.5) / STYLE_GRID[0])
    wanted, shown = tables["relu4_1"][:, row * STYLE_GRID[1] + column], weights(viewer)
    assert shown.shape == wanted.shape
    assert np.all(np.abs(shown - wanted) <= tables["relu4_1"].max(axis=1) / 255 + 1e-5)
    assert viewer.darkness("style").max() == 0
    viewer.desk.shot(shots / f"viewer_reverse_{renderer}.png")


def test_a_click_pins_the_point_and_writes_x_and_y(viewer: Viewer, shots: Path, renderer: str) -> None:
    before = viewer.widgets
    viewer.click("content", 0.31, 0.72)
    after = viewer.widgets
    assert (after["x"], after["y"]) == (pytest.approx(0.31, abs=0.5 / GRID[1]), pytest.approx(0.72, abs=0.5 / GRID[0]))
    assert {name: value for name, value in after.items() if name not in ("x", "y", "viewer")} == {
        name: value for name, value in before.items() if name not in ("x", "y", "viewer")
    }
    prompt = viewer.desk.prompt()
    assert [after["x"], after["y"]] in [
        [entry["inputs"]["x"], entry["inputs"]["y"]] for entry in prompt.values() if entry["class_type"] == KIND
    ]
    assert all("viewer" not in entry["inputs"] for entry in prompt.values())
    for x in (0.1, 0.2, 0.4, 0.5, 0.6, 0.7):
        viewer.click("content", x, 0.3)
    pins = viewer.ask("[...shadow.querySelectorAll('.chip')].map(chip => getComputedStyle(chip).borderColor)")
    assert len(pins) == len(set(pins)) == 6, "the seventh point takes the place of the first, and colours differ"
    viewer.desk.shot(shots / f"viewer_pins_{renderer}.png")


def test_the_keyboard_is_enough(viewer: Viewer) -> None:
    """Focus is visible; arrows move by one rectangle, Enter pins, Delete unpins, and no key reaches the graph."""
    nodes = len(viewer.desk.nodes())
    viewer.ask("shadow.querySelector('[data-pane=content]').focus()")
    start = viewer.ask("element.viewer.index.content")
    for key in ("ArrowRight", "ArrowDown", "Shift+ArrowRight"):
        viewer.page.keyboard.press(key)
    assert viewer.ask("element.viewer.index.content") == start + 1 + GRID[1] + 5
    assert viewer.ask("shadow.querySelector('.live').textContent") == viewer.status
    outline = "getComputedStyle(shadow.querySelector('[data-pane=content]'))"
    assert viewer.ask(f"{outline}.outlineStyle") == "solid" and viewer.ask(f"{outline}.outlineWidth") == "3px"
    viewer.page.keyboard.press("Enter")
    assert viewer.ask("shadow.querySelectorAll('.chip').length") == 1
    viewer.page.keyboard.press("Delete")
    assert viewer.ask("shadow.querySelectorAll('.chip').length") == 0
    assert len(viewer.desk.nodes()) == nodes
    assert viewer.ask("shadow.querySelector('[data-pane=content]').ariaLabel").startswith("Content")


def test_sharpness_and_receptive_fields_are_drawn(viewer: Viewer, shots: Path, renderer: str) -> None:
    viewer.hover("content", 0.5, 0.5)
    fields = (
        "[...shadow.querySelectorAll('[data-field][stroke=\"#ffffff\"]')].map(one => Number(one.getAttribute('width')))"
    )
    assert viewer.ask(fields) == [24, 52, 108], "of the built-in model's encoder, whose blocks have two convolutions"
    viewer.press(".entropy")
    viewer.hover("content", 0.5, 0.4)
    legend = viewer.ask("shadow.querySelector('.legend').textContent")
    assert legend.startswith("sharp 0.") and "flat" in legend
    viewer.desk.shot(shots / f"viewer_sharpness_{renderer}.png")
    viewer.press(".entropy")


def test_the_wheel_over_the_viewer_moves_the_canvas(viewer: Viewer) -> None:
    before = viewer.ask("app.canvas.ds.scale")
    viewer.hover("content", 0.5, 0.5)
    viewer.page.mouse.wheel(0, -200)
    viewer.page.wait_for_timeout(500)
    assert viewer.ask("app.canvas.ds.scale") != before


def test_a_saved_workflow_shows_its_attention_again_until_the_file_is_gone(
    host: Host, page: Desk, viewer: Viewer, shots: Path, renderer: str
) -> None:
    """Then it says so, and its button brings it back, although the host has not forgotten the heat map."""
    viewer.press("[data-tab=relu5_1]")
    viewer.click("content", 0.2, 0.8)
    saved = page.saved()
    values = {node["id"]: node.get("widgets_values") for node in saved["nodes"]}
    original = {node["id"]: node.get("widgets_values") for node in load(EXAMPLE)["nodes"]}
    assert [len(values[key] or []) for key in (6, 7)] == [len(original[key]) for key in (6, 7)], "no widget is added"
    reopen(page, saved)
    viewer.wait_until_shown()
    assert viewer.ask("element.viewer.tab") == "relu5_1"
    assert viewer.ask("shadow.querySelectorAll('.chip').length") == 1
    for file in (host.base / "temp" / "adaattn").glob("attention_*"):
        file.unlink()
    reopen(page, saved)
    viewer.wait("shadow.querySelector('.message button')")
    viewer.center()
    assert "is gone" in viewer.ask("shadow.querySelector('.message').textContent")
    page.shot(shots / f"viewer_gone_{renderer}.png")
    viewer.press(".message button")
    viewer.wait_until_shown()


def reopen(page: Desk, workflow: Any) -> None:
    """Load the page anew, and a workflow after it has brought back by itself what was last on it."""
    page.reload()
    page.page.wait_for_timeout(5000)
    page.load(workflow)


def test_the_canvas_and_other_nodes_are_not_blocked_and_the_viewer_goes_with_its_node(page: Desk) -> None:
    page.load(load(EXAMPLE))
    viewer = Viewer(page)
    viewer.run()
    page.page.evaluate(
        """() => { for (const node of [...app.graph.nodes]) if (node.type === "AdaAttN_AttentionMap") {
            window.lastViewer = node.widgets.find(widget => widget.name === "viewer").element.viewer;
            app.graph.remove(node);
        } }"""
    )
    page.page.wait_for_timeout(500)
    assert page.page.evaluate("() => document.querySelectorAll('.adaattn-viewer').length") == 0
    assert page.page.evaluate("() => window.lastViewer.view === undefined && window.lastViewer.state === 'empty'")


def test_it_works_inside_a_subgraph(page: Desk, shots: Path) -> None:
    if not page.has_subgraphs():
        pytest.skip("this ComfyUI's page has no subgraphs")
    page.load(load(EXAMPLE))
    page.page.evaluate(
        """() => {
            const chosen = app.graph.nodes.filter(node => ["AdaAttN_AttentionMap", "PreviewImage"].includes(node.type));
            app.canvas.selectItems(chosen);
            const { node } = app.graph.convertToSubgraph(new Set(chosen));
            app.canvas.openSubgraph(node.subgraph, node);
        }"""
    )
    page.page.wait_for_timeout(1000)
    viewer = Viewer(page)
    viewer.run()
    viewer.center()
    viewer.hover("content", 0.5, 0.3)
    assert "looks most at" in viewer.status
    page.shot(shots / "viewer_subgraph.png")


@pytest.mark.parametrize(
    ("language", "word"), [("en", "mean"), ("ko", "\ud3c9\uade0"), ("zh", "\u5e73\u5747"), ("ja", "\u5e73\u5747")]
)
def test_it_speaks_the_language_of_the_page(page: Desk, shots: Path, language: str, word: str) -> None:
    try:
        page.set("Comfy.Locale", language)
        page.reload()
        page.load(load(EXAMPLE))
        viewer = Viewer(page)
        viewer.run()
        viewer.center()
        assert viewer.ask("shadow.querySelector('[data-tab=mean]').textContent") == word
        page.shot(shots / f"viewer_{language}.png")
    finally:
        page.set("Comfy.Locale", "en")
        page.reload()


@pytest.mark.parametrize("palette", ["dark", "light"])
def test_it_can_be_read_in_every_theme_and_at_twice_the_size(
    viewer: Viewer, shots: Path, palette: str, renderer: str
) -> None:
    """The words stand out from what is behind them: a contrast of at least 4.5, as WCAG asks."""
    page = viewer.desk
    try:
        page.set("Comfy.ColorPalette", palette)
        page.page.wait_for_timeout(1000)
        viewer.click("content", 0.3, 0.7)
        viewer.hover("content", 0.6, 0.2)
        page.shot(shots / f"viewer_{palette}_{renderer}.png")
        button = "getComputedStyle(shadow.querySelector('[data-tab=relu3_1]'))"
        assert contrast(viewer.ask(f"{button}.color"), viewer.ask(f"{button}.backgroundColor")) >= 4.5
        viewer.ask("(app.canvas.ds.changeScale(2, [800, 450]), app.canvas.centerOnNode(node))")
        page.page.wait_for_timeout(800)
        viewer.hover("content", 0.6, 0.2)
        page.shot(shots / f"viewer_{palette}_{renderer}_200.png")
    finally:
        page.set("Comfy.ColorPalette", "dark")


# ---------------------------------------------------------------- outside ComfyUI

HOSTILE = "<img src=x onerror=\"document.title='hacked'\">"


def test_the_page_works_from_disk_and_shows_names_as_text(page: Desk, tmp_path: Path, shots: Path) -> None:
    """Without a connection, by touch too, and without a message in the console."""
    output = tmp_path / "view.html"
    pictures = [tmp_path / f"{HOSTILE.replace('/', '')}{name}.png" for name in ("a", "b")]
    for path, name in zip(pictures, ("coffee", "auvers"), strict=True):
        path.write_bytes((ROOT / "examples" / f"{name}.jpg").read_bytes())
    words = ("attention", pictures[0], "--style", pictures[1], "-o", output)
    command = [sys.executable, "-m", "adaattn_core", *map(str, words)]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    context = page.page.context.browser.new_context(
        viewport={"width": 1200, "height": 800}, offline=True, has_touch=True
    )
    try:
        tab = context.new_page()
        said: list[str] = []
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.goto(output.as_uri())
        pane = tab.locator("[data-pane=content]")
        pane.tap()
        assert tab.locator(".chip").count() == 1, "a tap pins a point"
        assert "looks most at" in tab.locator(".status").inner_text()
        pane.hover()
        assert "looks most at" in tab.locator(".status").inner_text()
        assert HOSTILE in tab.locator("h1").inner_text() and HOSTILE in (pane.get_attribute("aria-label") or "")
        assert tab.title() != "hacked" and said == []
        tab.screenshot(path=str(shots / "page.png"))
    finally:
        context.close()


def test_the_console_is_clean(page: Desk) -> None:
    """Last, after all that was done on the page. A file that was deleted is a 404, which the browser reports itself."""
    assert [error for error in page.own_errors if "/view?" not in error] == []
