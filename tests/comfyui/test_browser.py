"""What a person sees: the page of a real ComfyUI in a real browser.

Screenshots go to the folder SHOTS, for somebody to look at; without it, to pytest's own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.comfyui.conditions import require_browser, require_checkout
from tests.comfyui.graphs import blueprint_graph, stylize_graph, with_mask
from tests.comfyui.host import PACK_NAME, ROOT, Host
from tests.comfyui.workflow import as_prompt, load
from tests.helpers.locale_files import node_words

require_checkout()
require_browser()

from tests.comfyui.browser import NODES_2, Desk, desk  # noqa: E402 (needs playwright, which the line above asks for)

EXAMPLES = sorted((ROOT / "example_workflows").glob("*.json"))
FIRST = EXAMPLES[0]
TYPES = (
    "ADAATTN_ENCODER", "ADAATTN_ATTENTION", "ADAATTN_DECODER", "ADAATTN_FEATURES", "ADAATTN_FUSED", "ADAATTN_REGIONS",
)  # fmt: skip
LANGUAGES = ("en", "ko", "zh", "ja")


@pytest.fixture(scope="module")
def page(host: Host) -> Iterator[Desk]:
    """One page for all tests, which leave it as they found it."""
    with desk(host) as opened:
        yield opened


@pytest.fixture(scope="session")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(os.environ.get("SHOTS") or tmp_path_factory.mktemp("shots"))


def test_a_template_opens_and_runs_from_the_page(page: Desk, shots: Path) -> None:
    """Templates, the pack, the first example, Run: and there is a picture."""
    page.open_template(FIRST.stem, shots / "templates.png")
    assert len(page.nodes()) == len(load(FIRST)["nodes"])
    page.run()
    page.wait_for_picture("SaveImage")
    page.shot(shots / "template_result.png")
    assert page.errors_of_nodes() == {}


def test_a_notice_of_a_run_is_shown(page: Desk, info: dict[str, Any], shots: Path) -> None:
    """The run succeeds all the same: there is a picture."""
    page.load_prompt(with_mask(info, stylize_graph(info), "stylize", "content_mask", 0.0))
    page.run()
    page.page.get_by_text("the content mask is empty").first.wait_for()
    page.wait_for_picture("PreviewImage")
    page.shot(shots / "notice.png")


def test_a_new_model_file_is_offered_after_r(page: Desk, small_model_file: Path) -> None:
    """And may be chosen: the page sends its name."""
    page.load(load(FIRST))
    page.page.mouse.click(150, 500)  # an empty place, so that keys go to the canvas
    page.page.keyboard.press("r")
    name = small_model_file.name
    choice = "app.graph.nodes.find(node => node.type === 'AdaAttN_Stylize').widgets[0]"
    page.page.wait_for_function(f"name => {choice}.options.values.includes(name)", arg=name)
    page.page.evaluate(f"name => {{ {choice}.value = name; }}", name)
    assert name in [entry["inputs"].get("model_name") for entry in page.prompt().values()]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_page_sends_what_the_tests_run(page: Desk, info: dict[str, Any], shots: Path, path: Path) -> None:
    """The other tests turn an example into a prompt by themselves; the page must come to the same."""
    page.load(load(path))
    page.shot(shots / f"example_{path.stem}.png")
    sent = {
        node: {"class_type": entry["class_type"], "inputs": entry["inputs"]} for node, entry in page.prompt().items()
    }
    assert sent == as_prompt(load(path), info)


def test_the_page_understands_the_blueprint(page: Desk, info: dict[str, Any], shots: Path) -> None:
    if not page.has_subgraphs():
        pytest.skip("this ComfyUI's page has no subgraphs")
    page.load(blueprint_graph())
    page.shot(shots / "blueprint.png")
    sent = {
        node: {"class_type": entry["class_type"], "inputs": entry["inputs"]} for node, entry in page.prompt().items()
    }
    assert sent == as_prompt(blueprint_graph(), info)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_nodes_do_not_cover_each_other(page: Desk, path: Path) -> None:
    """At the sizes that this page gives them, which are not those in the file."""
    page.load(load(path))
    assert page.overlapping_nodes() == []


def test_nodes_do_not_cover_each_other_in_nodes_2(page: Desk, shots: Path) -> None:
    if page.version < NODES_2:
        pytest.skip(f"Nodes 2.0 of page {page.version} is a draft")
    page.set("Comfy.VueNodes.Enabled", True)
    try:
        for path in EXAMPLES:
            page.load(load(path))
            page.page.wait_for_function(
                "() => app.graph.nodes.every(node => document.querySelector(`[data-node-id='${node.id}']`))"
            )
            page.fit()
            page.shot(shots / f"nodes_2_{path.stem}.png")
            assert page.overlapping_nodes() == [], path.stem
    finally:
        page.set("Comfy.VueNodes.Enabled", False)


# ---------------------------------------------------------------- colours


def colours(page: Desk) -> dict[str, tuple[str, str, str]]:
    """Type -> its colour in the canvas, for its links, and for Nodes 2.0."""
    found: dict[str, Any] = page.page.evaluate(
        """types => Object.fromEntries(types.map(type => [type, [
            app.canvas.default_connection_color_byType[type],
            app.canvas.constructor.link_type_colors[type],
            getComputedStyle(document.documentElement).getPropertyValue(`--color-datatype-${type}`).trim(),
        ]]))""",
        TYPES,
    )
    return {kind: tuple(values) for kind, values in found.items()}


def test_sockets_keep_their_colours_through_palettes(page: Desk, shots: Path) -> None:
    page.load(load(EXAMPLES[1]))
    before = colours(page)
    assert all(re.fullmatch("#[0-9a-f]{6}", values[0]) and len(set(values)) == 1 for values in before.values()), before
    assert len({values[0] for values in before.values()}) == len(TYPES)
    try:
        for palette in ("light", "nord", "dark"):
            page.set("Comfy.ColorPalette", palette)
            page.page.wait_for_timeout(1000)
            page.shot(shots / f"palette_{palette}.png")
            assert colours(page) == before
    finally:
        page.set("Comfy.ColorPalette", "dark")


def test_sockets_have_their_colours_in_nodes_2(page: Desk, shots: Path) -> None:
    if page.version < NODES_2:
        pytest.skip(f"Nodes 2.0 of page {page.version} is a draft")
    wanted = {kind: values[0] for kind, values in colours(page).items()}
    try:
        page.set("Comfy.VueNodes.Enabled", True)
        page.load(load(EXAMPLES[1]))
        page.page.wait_for_selector("[data-node-id]")
        page.page.wait_for_timeout(1500)
        page.shot(shots / "nodes_2.png")
        drawn = page.slot_colours("AdaAttN_LoadModel")
        assert [_hex(colour) for colour in drawn] == [wanted[kind] for kind in TYPES[:3]]
    finally:
        page.set("Comfy.VueNodes.Enabled", False)


def _hex(colour: str) -> str:
    """rgb(1, 2, 3) -> #010203"""
    return "#" + "".join(f"{int(part):02x}" for part in re.findall(r"\d+", colour)[:3])


# ---------------------------------------------------------------- help and languages


def test_the_help_of_a_node_is_shown(page: Desk, shots: Path) -> None:
    help_file = ROOT / "web" / "docs" / "AdaAttN_Stylize.md"
    page.load(load(FIRST))
    page.open_help("AdaAttN_Stylize")
    page.shot(shots / "help.png")
    headings = re.findall(r"^#+ (.+)$", help_file.read_text(encoding="utf-8"), re.MULTILINE)
    shown = page.page.inner_text("body")
    assert headings and all(heading.strip() in shown for heading in headings[1:])


@pytest.mark.parametrize("language", LANGUAGES)
def test_nodes_speak_the_language_of_the_page(page: Desk, shots: Path, language: str) -> None:
    """Titles, sockets and widgets of a node that was just added."""
    words = node_words(language)["AdaAttN_Apply"]
    try:
        page.set("Comfy.Locale", language)
        page.reload()
        page.load({**load(EXAMPLES[0]), "nodes": [], "links": [], "groups": []})
        title, sockets, widgets = page.add_node("AdaAttN_Apply")
        page.shot(shots / f"language_{language}.png")
    finally:
        page.set("Comfy.Locale", "en")
        page.reload()
    assert title == words["display_name"]
    names = {name: entry["name"] for name, entry in words["inputs"].items()}
    assert {**sockets, **widgets} == names


def test_zz_the_console_shows_no_error_of_this_pack(page: Desk) -> None:
    """Last, after all that was done on the page."""
    assert page.own_errors == []
    assert any(f"/extensions/{PACK_NAME}/" in address for address in page.loaded), "no script of the pack was loaded"
