"""The help pages of the ComfyUI nodes agree with the nodes, and every translation agrees with the English page.

A page is web/docs/<node id>/<language>.md. English is also web/docs/<node id>.md, which ComfyUI shows if there is no
page in the user's language. Relative picture paths of both start at web/docs.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
from PIL import Image

from tests.helpers.node_schemas import Socket, node_schemas
from tests.nodes.test_languages import FOREIGN, LANGUAGES, SCRIPTS, TRANSLATED, read

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "web" / "docs"
LARGEST_BYTES = 60_000
NUMBERS = re.compile(r"\d+(?:\.\d+)?")
CODE = re.compile(r"`([^`]+)`")
PICTURE = re.compile(r"!\[([^\]]+)\]\(([^)]+)\)")


class Item(NamedTuple):
    """A list entry `**names** (values): text`. Outputs have no values; entries of other lists have no names."""

    names: list[str]
    values: str
    text: str


class Page(NamedTuple):
    """A parsed help page. sections: the list entries under each ## heading; inputs and outputs first, messages last."""

    text: str
    title: str
    headings: list[str]
    sections: list[list[Item]]

    @property
    def pictures(self) -> list[str]:
        return [path for _, path in PICTURE.findall(self.text)]

    @property
    def messages(self) -> list[str]:
        return [message for item in self.sections[-1] for message in CODE.findall(item.text)[:1]]


def page_path(node: str, language: str) -> Path:
    return DOCS / node / f"{language}.md"


@cache
def page(node: str, language: str) -> Page:
    text = page_path(node, language).read_text(encoding="utf-8")
    sections = [
        [_item(line) for line in section.splitlines() if line.startswith("- ")]
        for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    ]
    headings = [line for line in text.splitlines() if line.startswith("#")]
    return Page(text, headings[0].removeprefix("# "), headings, sections)


def _item(line: str) -> Item:
    """Parses a list entry; brackets and colons may be full-width."""
    match = re.fullmatch(r"- (\*\*.+?\*\*)(?: ?[(\uff08](.*?)[)\uff09])?[:\uff1a] ?(.*)", line)
    if not match:
        return Item([], "", line.removeprefix("- "))
    return Item(re.findall(r"\*\*(.+?)\*\*", match[1]), match[2] or "", match[3])


NODES = list(node_schemas())
IN_EVERY_LANGUAGE = pytest.mark.parametrize("language", LANGUAGES)
IN_EVERY_TRANSLATION = pytest.mark.parametrize("language", TRANSLATED)


def names(node: str, language: str, kind: str) -> list[str]:
    return [socket["name"] for socket in read(language, "nodeDefs")[node][kind].values()]


def test_there_is_a_page_for_every_node_and_no_other() -> None:
    expected = {page_path(node, language) for node in NODES for language in LANGUAGES}
    assert set(DOCS.rglob("*.md")) == expected | {DOCS / f"{node}.md" for node in NODES}


def test_other_languages_get_the_english_page() -> None:
    """A copy of it: ComfyUI asks for en.md first, and a missing page is an error in the browser's console."""
    for node in NODES:
        assert (DOCS / f"{node}.md").read_bytes() == page_path(node, "en").read_bytes(), node


@IN_EVERY_LANGUAGE
def test_the_title_is_the_nodes_name(language: str) -> None:
    titles = {node: page(node, language).title for node in NODES}
    assert titles == {node: read(language, "nodeDefs")[node]["display_name"] for node in NODES}


@IN_EVERY_LANGUAGE
def test_every_input_and_output_has_its_entry(language: str) -> None:
    """By the name that the node shows in that language, in the node's order; similar inputs may share an entry."""
    for node in NODES:
        inputs, outputs = page(node, language).sections[:2]
        expected = names(node, language, "inputs")
        assert sorted(name for item in inputs for name in item.names) == sorted(expected), node
        first = [item.names[0] for item in inputs if item.names]
        assert first == [name for name in expected if name in first], f"{node}: not in the node's order"
        assert [item.names for item in outputs] == [[name] for name in names(node, language, "outputs")], node


@IN_EVERY_LANGUAGE
def test_ranges_and_choices_are_those_of_the_schema(language: str) -> None:
    for node in NODES:
        sockets = dict(zip(names(node, language, "inputs"), node_schemas()[node].inputs, strict=True))
        for item in page(node, language).sections[0]:
            for name in item.names:
                pattern = CODE if sockets[name].type == "COMBO" else NUMBERS
                stated = pattern.findall(item.values)
                assert item.values and stated == _values(sockets[name]), f"{node}, {name}: {item.values}"


def _values(socket: Socket) -> list[str]:
    """What a page has to state of an input: minimum, maximum and default of a number; the choices of a list."""
    options = socket.options
    if socket.type in ("FLOAT", "INT"):
        return [f"{options[key]:.10g}" for key in ("min", "max", "default")]
    return list(map(str, options["options"])) if socket.type == "COMBO" else []


class Layout(NamedTuple):
    """The parts of a page that a translation does not change."""

    heading_levels: list[int]
    pictures: list[str]
    section_lengths: list[int]
    messages: list[str]
    code: list[str]
    paragraphs: int


def layout(node: str, language: str) -> Layout:
    source = page(node, language)
    return Layout(
        [len(heading.split()[0]) for heading in source.headings],
        source.pictures,
        [len(section) for section in source.sections],
        source.messages,
        sorted(CODE.findall(source.text)),
        len([part for part in source.text.split("\n\n") if part.strip()]),
    )


@IN_EVERY_TRANSLATION
def test_translations_are_built_like_the_english_page(language: str) -> None:
    for node in NODES:
        for part, translated, english in zip(Layout._fields, layout(node, language), layout(node, "en"), strict=True):
            assert translated == english, f"{node}: {part}"


@IN_EVERY_TRANSLATION
def test_translations_are_translated(language: str) -> None:
    for node in NODES:
        for line in page(node, language).text.splitlines():
            plain = CODE.sub("", line)
            if re.search(r"[a-zA-Z]{3}", plain.replace("AdaAttN", "")):
                assert re.search(SCRIPTS[language], plain), f"{node}: {line}"
            assert not re.search(FOREIGN[language], line), f"{node}: {line}"


@IN_EVERY_TRANSLATION
def test_translations_call_the_nodes_by_their_names(language: str) -> None:
    for node in NODES:
        english, translated = page(node, "en").text, page(node, language).text
        for other in NODES:
            title = read(language, "nodeDefs")[other]["display_name"]
            english_title = read("en", "nodeDefs")[other]["display_name"]
            assert (title in translated) == (english_title in english), f"{node}: {title}"


def test_messages_are_those_of_the_code() -> None:
    """Quoted literally, with … for the variable parts."""
    for node in NODES:
        assert page(node, "en").messages, node
        for message in page(node, "en").messages:
            assert any(message.strip("… ") in text for text in _messages()), f"{node}: {message}"


@cache
def _messages() -> list[str]:
    """Every text in the sources of the nodes and the library, with … for its placeholders."""
    paths = [path for folder in ("adaattn_core", "nodes") for path in sorted((ROOT / folder).rglob("*.py"))]
    return [text for path in paths for text in _texts(ast.parse(path.read_text(encoding="utf-8")))]


def _texts(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
            yield text.replace("…x…", "…")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_pictures_are_there_small_and_shown() -> None:
    shown = {path for node in NODES for path in page(node, "en").pictures}
    assert shown == {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.jpg")}
    for path in shown:
        assert (DOCS / path).stat().st_size <= LARGEST_BYTES, path
        with Image.open(DOCS / path) as opened:
            assert opened.format == "JPEG" and opened.width == pictures_script().WIDTH, path


def test_every_page_shows_a_picture_and_one_command_makes_them_all() -> None:
    assert all(page(node, "en").pictures for node in NODES)
    assert {f"{name}.jpg" for name in pictures_script().PICTURES} == {path.name for path in DOCS.rglob("*.jpg")}


def test_the_readme_names_every_node() -> None:
    rows = re.findall(r"^\| \*\*(.+?)\*\* \|", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert sorted(rows) == sorted(page(node, "en").title for node in NODES)


def test_a_strip_is_as_wide_as_it_should_be() -> None:
    script = pictures_script()
    made = script.strip([Image.new("RGB", size) for size in ((300, 200), (200, 200), (333, 100))])
    assert made.width == script.WIDTH
    assert made.height == round((script.WIDTH - 2 * script.GAP) / (1.5 + 1 + 3.33))


def test_the_picture_of_features_shows_what_its_caption_names() -> None:
    named = re.findall(r"relu\d_1", page("AdaAttN_ExtractFeatures", "en").text)
    assert len(pictures_script().features()) == 1 + len(named)


@cache
def pictures_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("help_pictures", ROOT / "docs" / "help_pictures.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
