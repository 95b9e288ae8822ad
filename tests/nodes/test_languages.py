"""The texts of the ComfyUI nodes in every language: locales/<language>/*.json, in the layout that ComfyUI reads.

The English texts equal those of the schemas, so that a changed schema fails here until the locales follow.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.helpers.locale_files import node_words, read_locale, tooltips_by_label
from tests.helpers.node_schemas import Schema, Socket, node_schemas

LANGUAGES = ("en", "ko", "zh", "ja")
TRANSLATED = LANGUAGES[1:]

HANGUL, KANA, HAN = r"\uac00-\ud7a3", r"\u3041-\u3093\u30a1-\u30f6", r"\u4e00-\u9fff"
SCRIPTS = {"ko": f"[{HANGUL}]", "zh": f"[{HAN}]", "ja": f"[{KANA}{HAN}]"}
FOREIGN = {"ko": f"[{KANA}]", "zh": f"[{HANGUL}{KANA}]", "ja": f"[{HANGUL}]"}
SAME_EVERYWHERE = {"x", "y", "AdaAttN"}
"""Words that are the same in every language."""

KEPT = re.compile(
    r"\d+(?:\.\d+)?|\w*(?:latest_net|vgg_normalised|relu\d)\w*|\.pth|\.safetensors|models/\w+"
    r"|(?:built-in|exact|sampled|torchvision|VGG)\b",
    flags=re.ASCII,
)
"""What a translation keeps: numbers, file names and option values, so that help in one language is of use for a
workflow made in another."""


def read(language: str, name: str) -> dict[str, Any]:
    return node_words(language) if name == "nodeDefs" else read_locale(language, name)


def texts(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Every text of nested dicts with the path of its keys."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from texts(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def words(language: str) -> dict[str, str]:
    """All texts of a language by path, in the order of the files."""
    return {path: text for name in ("main", "nodeDefs") for path, text in texts(read(language, name), f"{name}.")}


def in_schema(schema: Schema) -> dict[str, Any]:
    """The entry of nodeDefs.json that a schema describes."""

    def named(socket: Socket) -> dict[str, str]:
        return {"name": socket.name, "tooltip": socket.tooltip}

    def labelled(socket: Socket) -> dict[str, Any]:
        return {"options": {value: value for value in socket.options["options"]}} if socket.type == "COMBO" else {}

    return {
        "display_name": schema.display_name,
        "description": schema.description,
        "inputs": {socket.id: {**named(socket), **labelled(socket)} for socket in schema.inputs},
        "outputs": {str(place): named(socket) for place, socket in enumerate(schema.outputs)},
    }


ENGLISH = words("en")


def test_english_texts_are_those_of_the_schemas() -> None:
    expected = dict(texts({node: in_schema(schema) for node, schema in node_schemas().items()}, "nodeDefs."))
    written = {path: text for path, text in ENGLISH.items() if path.startswith("nodeDefs.")}
    assert written == expected


def test_schemas_leave_no_text_out() -> None:
    for path, text in texts({node: in_schema(schema) for node, schema in node_schemas().items()}):
        assert text.strip(), path


def test_categories_and_socket_types_have_names() -> None:
    schemas = node_schemas().values()
    main = read("en", "main")
    assert set(main["nodeCategories"]) == {part for schema in schemas for part in schema.category.split("/")}
    sockets = [socket for schema in schemas for socket in (*schema.inputs, *schema.outputs)]
    assert set(main["dataTypes"]) == {socket.type for socket in sockets if socket.type.startswith("ADAATTN")}


@pytest.mark.parametrize("language", TRANSLATED)
def test_every_language_has_every_text(language: str) -> None:
    assert list(words(language)) == list(ENGLISH)


@pytest.mark.parametrize("language", LANGUAGES)
def test_tooltips_of_sockets_are_there_by_label_too(language: str) -> None:
    """The page's Nodes 2.0 looks up the tooltip of an input without a widget by what the input is called there."""
    by_label = tooltips_by_label(language)
    for node, schema in node_schemas().items():
        inputs = read(language, "nodeDefs")[node]["inputs"]
        sockets = [inputs[socket.id] for socket in schema.inputs if not socket.has_widget]
        expected = {one["name"]: one["tooltip"] for one in sockets if inputs.get(one["name"]) is not one}
        assert by_label[node] == expected, node


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_is_empty_or_read_as_a_pattern(language: str) -> None:
    """ComfyUI's frontend formats texts with vue-i18n, to which { } @ and | are special characters."""
    for path, text in words(language).items():
        assert text == text.strip() != "", path
        assert not re.search(r"[{}@|]", text), f"{path}: {text}"


@pytest.mark.parametrize("language", TRANSLATED)
def test_no_text_is_left_in_english_or_in_another_language(language: str) -> None:
    for path, text in words(language).items():
        assert not re.search(FOREIGN[language], text), f"{path}: {text}"
        if ENGLISH[path] not in SAME_EVERYWHERE:
            assert re.search(SCRIPTS[language], text), f"{path}: {text}"


@pytest.mark.parametrize("language", TRANSLATED)
def test_numbers_files_and_options_stay_as_they_are(language: str) -> None:
    """A translation may have more digits: it may write a number as digits that English spells out."""
    for path, text in words(language).items():
        kept, needed = set(KEPT.findall(text)), set(KEPT.findall(ENGLISH[path]))
        assert needed <= kept, f"{path}: {text}"
        assert all(len(more) == 1 for more in kept - needed), f"{path}: {text}"


@pytest.mark.parametrize("language", TRANSLATED)
def test_an_option_is_found_by_its_value(language: str) -> None:
    """Help pages, tooltips and workflows name options by their values."""
    options = {path: text for path, text in words(language).items() if ".options." in path}
    assert options
    for path, text in options.items():
        assert text.startswith(re.split(r"\W", ENGLISH[path])[0]) and text != ENGLISH[path], path


@pytest.mark.parametrize("language", TRANSLATED)
def test_one_word_has_one_translation(language: str) -> None:
    """And different inputs of one node have different names."""
    chosen: dict[str, str] = {}
    for path, text in words(language).items():
        assert chosen.setdefault(ENGLISH[path], text) == text, f"{path}: {ENGLISH[path]}"
    for node, entry in read(language, "nodeDefs").items():
        names = [socket["name"] for socket in entry["inputs"].values()]
        assert len(set(names)) == len(names), node


@pytest.mark.parametrize("language", TRANSLATED)
def test_nodes_are_called_by_their_names(language: str) -> None:
    """A text that names another node by its title in English does so in every language."""
    titles = {text: path for path, text in ENGLISH.items() if path.endswith(".display_name")}
    translated = words(language)
    for path, text in translated.items():
        for title, place in titles.items():
            if title in ENGLISH[path]:
                assert translated[place] in text, f"{path} does not name {translated[place]}: {text}"
