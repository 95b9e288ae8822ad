"""Names, tooltips and help pages of the nodes, in every language, as the host serves and its page shows them.

What the words say is for tests/nodes/test_languages.py and tests/nodes/test_help.py, which need no ComfyUI.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.comfyui.conditions import require_browser, require_checkout
from tests.comfyui.host import PACK_NAME, ROOT, Host
from tests.helpers.locale_files import node_words, read_locale

if TYPE_CHECKING:
    from tests.comfyui.browser import Desk

require_checkout()

LANGUAGES = ("en", "ko", "zh", "ja")
LOCALES = {language: node_words(language) for language in LANGUAGES}
NODES = list(LOCALES["en"])
SHOWN = "AdaAttN_Apply"
"""The node that is looked at: sockets and every kind of widget, two outputs."""

MAKE = """id => {
    app.graph.clear();
    const node = LiteGraph.createNode(id);
    app.graph.add(node);
    node.pos = [0, 0];
    return {
        title: node.title,
        inputs: node.inputs.map(input => [input.name, input.label || input.localized_name]),
        widgets: node.widgets.map(widget => [widget.name, widget.label]),
        outputs: node.outputs.map(output => output.label || output.localized_name),
    };
}"""
TITLE = """() => {
    const node = app.graph.nodes[0];
    return app.canvasPosToClientPos([node.pos[0] + node.size[0] / 2, node.pos[1] - 12]);
}"""
PICTURES = (
    "() => [...document.querySelectorAll('.node-help-content img')].map(image => [image.src, image.naturalWidth])"
)
MIDDLE_OF = """name => {
    const node = app.graph.nodes[0];
    const widget = node.widgets.find(widget => widget.name == name);
    return app.canvasPosToClientPos([node.pos[0] + node.size[0] / 2, node.pos[1] + widget.last_y + 10]);
}"""


# ---------------------------------------------------------------- what the host serves


def test_schemas_and_the_english_locale_say_the_same(info: dict[str, Any]) -> None:
    for node, words in LOCALES["en"].items():
        schema = info[node]
        entries = {**schema["input"].get("required", {}), **schema["input"].get("optional", {})}
        assert (schema["display_name"], schema["description"]) == (words["display_name"], words["description"])
        assert {name: entry[1]["tooltip"] for name, entry in entries.items()} == {
            name: entry["tooltip"] for name, entry in words["inputs"].items()
        }
        assert schema["output_name"] == [entry["name"] for entry in words["outputs"].values()]
        assert schema["output_tooltips"] == [entry["tooltip"] for entry in words["outputs"].values()]
    assert {name for name in info if name.startswith("AdaAttN_")} == set(NODES)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_host_hands_out_every_language(host: Host, language: str) -> None:
    handed = host.get("/i18n")[language]
    assert {node: handed["nodeDefs"].get(node) for node in NODES} == read_locale(language, "nodeDefs")
    main = read_locale(language, "main")
    assert all(handed[part][key] == value for part, words in main.items() for key, value in words.items())


@pytest.mark.parametrize("node", NODES)
def test_help_pages_and_their_pictures_are_served(host: Host, node: str) -> None:
    base = f"/extensions/{PACK_NAME}/docs/"
    for page in (f"{node}.md", *(f"{node}/{language}.md" for language in LANGUAGES)):
        text = host.fetch(base + page).decode()
        assert text == (ROOT / "web" / "docs" / page).read_text(encoding="utf-8")
        for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text):
            assert host.fetch(base + picture)[:2] == b"\xff\xd8", picture


# ---------------------------------------------------------------- what the page shows


@pytest.fixture(scope="module")
def table(host: Host) -> Iterator[Desk]:
    require_browser()
    from tests.comfyui.browser import desk  # wants playwright

    with desk(host) as opened:
        yield opened
        opened.set("Comfy.Locale", "en")  # which the host keeps for the next page


def shot(table: Desk, name: str) -> None:
    """Keep a picture of the page where SHOTS says so."""
    if os.environ.get("SHOTS"):
        table.shot(Path(os.environ["SHOTS"]) / f"{name}.png")


def show(table: Desk, language: str) -> Any:
    """A node on an empty canvas, in this language: what it shows."""
    table.set("Comfy.Locale", language)
    table.reload()
    made = table.page.evaluate(MAKE, SHOWN)
    table.fit()
    return made


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_node_its_tooltip_and_its_help_are_shown(table: Desk, language: str) -> None:
    words = LOCALES[language][SHOWN]
    made = show(table, language)
    assert made["title"] == words["display_name"]
    assert dict(made["inputs"]) == {name: entry["name"] for name, entry in words["inputs"].items()}
    assert all(label == words["inputs"][name]["name"] for name, label in made["widgets"])
    assert made["outputs"] == [entry["name"] for entry in words["outputs"].values()]

    table.page.mouse.move(*table.page.evaluate(MIDDLE_OF, "strength"))
    table.page.get_by_text(words["inputs"]["strength"]["tooltip"], exact=True).first.wait_for()

    table.page.mouse.click(*table.page.evaluate(TITLE))
    table.page.locator('[data-testid="info-button"]').first.click()
    table.page.locator(".node-help-content h1", has_text=words["display_name"]).first.wait_for()
    table.page.wait_for_function(f"() => ({PICTURES})().every(([, width]) => width > 0)")
    pictures = table.page.evaluate(PICTURES)
    assert pictures and all(f"/extensions/{PACK_NAME}/docs/pictures/" in source for source, _ in pictures)
    shot(table, f"help_{language}")
    assert table.own_errors == []


def test_options_have_labels_and_keep_their_values(table: Desk) -> None:
    """The page shows and offers an option in its language, and sends what every language sends."""
    from tests.comfyui.browser import LABELS

    if table.version < LABELS:
        pytest.skip(f"options have no labels on page {table.version}")
    labels = LOCALES["ko"][SHOWN]["inputs"]["attention_mode"]["options"]
    show(table, "ko")
    choice = "app.graph.nodes[0].widgets.find(widget => widget.name == 'attention_mode')"
    table.page.wait_for_function(f"label => {choice}._displayValue == label", arg=labels["exact"])
    table.page.mouse.click(*table.page.evaluate(MIDDLE_OF, "attention_mode"))
    table.page.get_by_text(labels["sampled"], exact=True).first.click()
    table.page.wait_for_function(f"() => {choice}.value == 'sampled'")
    assert table.page.evaluate(f"() => {choice}._displayValue") == labels["sampled"]
    (sent,) = table.prompt().values()
    assert sent["inputs"]["attention_mode"] == "sampled"
    assert table.own_errors == []


def test_nodes_2_shows_the_same_names(table: Desk) -> None:
    """Of the inputs that are always in sight; the page folds the advanced ones away."""
    from tests.comfyui.browser import NODES_2

    if table.version < NODES_2:
        pytest.skip(f"Nodes 2.0 of page {table.version} is a draft")
    words = LOCALES["ko"][SHOWN]
    show(table, "ko")
    table.set("Comfy.VueNodes.Enabled", True)
    try:
        node = table.page.locator(".lg-node")
        node.get_by_text(words["display_name"]).first.wait_for()
        for name in ("attention", "content", "style", "content_mask", "style_mask", "strength"):
            node.get_by_text(words["inputs"][name]["name"], exact=True).first.wait_for()
        for entry in words["outputs"].values():
            node.get_by_text(entry["name"], exact=True).first.wait_for()
        table.fit()
        shot(table, "nodes_2")
    finally:
        table.set("Comfy.VueNodes.Enabled", False)
    assert table.own_errors == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_sockets_show_their_tooltips_in_nodes_2(table: Desk, language: str) -> None:
    """The page looks them up by the label of the socket."""
    from tests.comfyui.browser import NODES_2

    if table.version < NODES_2:
        pytest.skip(f"Nodes 2.0 of page {table.version} is a draft")
    show(table, language)
    table.set("Comfy.VueNodes.Enabled", True)
    try:
        for name in ("content_mask", "attention"):
            words = LOCALES[language][SHOWN]["inputs"][name]
            label = re.compile(rf"^\s*{re.escape(words['name'])}\s*$")
            table.page.locator(".lg-node .lg-slot--input").filter(has_text=label).first.hover()
            table.page.locator(".p-tooltip-text").get_by_text(words["tooltip"], exact=True).wait_for(timeout=60_000)
            table.page.mouse.move(1, 1)
    finally:
        table.set("Comfy.VueNodes.Enabled", False)
    assert table.own_errors == []
