"""The page of the viewer: complete in itself, names as text, and the same words in every language."""

from __future__ import annotations

import base64
import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from adaattn_core.viewer.view_page import FOLDER, SCRIPTS, script, view_page
from tests.nodes.test_languages import FOREIGN, LANGUAGES, TRANSLATED
from tests.nodes.test_languages import SCRIPTS as WRITING

NAME = '<img src=x onerror="alert(1)"> & $data </script>'


def test_the_page_needs_no_other_file() -> None:
    page = view_page(b"data", "title")
    assert base64.b64encode(b"data").decode() in page
    assert not re.search(r"(?:src|href)=|^import\b|^export\b|\bfetch\(|@import", page, re.MULTILINE)
    assert set(re.findall(r"https?://[^\s\"']+", page)) == {"http://www.w3.org/2000/svg"}, "a name, not an address"
    assert "$" not in re.sub(r"\$\{", "", page), "a placeholder is left"


def test_a_name_stays_text() -> None:
    page = view_page(b"", NAME)
    assert NAME not in page
    assert page.count(html.escape(NAME)) == 2
    assert "innerHTML" not in script() and "insertAdjacentHTML" not in script()


def test_every_module_is_in_the_script_and_after_those_that_it_imports() -> None:
    assert sorted(SCRIPTS) == sorted(path.stem for path in FOLDER.glob("*.mjs"))
    for place, name in enumerate(SCRIPTS):
        source = (FOLDER / f"{name}.mjs").read_text(encoding="utf-8")
        assert set(re.findall(r'from "\./(\w+)\.mjs"', source)) <= set(SCRIPTS[:place])


def test_the_script_is_javascript(tmp_path: Path) -> None:
    if shutil.which("node") is None:
        pytest.skip("needs Node.js: put `node` on the PATH to check the viewer's script")
    (tmp_path / "script.mjs").write_text(script(), encoding="utf-8")
    result = subprocess.run(["node", "--check", str(tmp_path / "script.mjs")], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


# ---------------------------------------------------------------- words


def words() -> dict[str, dict[str, str]]:
    source = (FOLDER / "attention_words.mjs").read_text(encoding="utf-8")
    read: dict[str, Any] = json.loads(source.partition("WORDS = ")[2].partition(";\n")[0])
    return read


def test_every_language_has_every_word() -> None:
    assert set(words()) == set(LANGUAGES)
    for language in TRANSLATED:
        assert list(words()[language]) == list(words()["en"])


@pytest.mark.parametrize("language", TRANSLATED)
def test_words_are_translated_and_keep_their_places(language: str) -> None:
    for name, text in words()[language].items():
        english = words()["en"][name]
        assert re.search(WRITING[language], text) and not re.search(FOREIGN[language], text), f"{name}: {text}"
        assert sorted(re.findall(r"\{\w+\}", text)) == sorted(re.findall(r"\{\w+\}", english)), name


def test_the_viewer_knows_every_word_that_it_uses_and_uses_every_word() -> None:
    source = (FOLDER / "attention_viewer.mjs").read_text(encoding="utf-8")
    named = set(re.findall(r"words\.(\w+)", source)) - {"mjs"}
    said = {"empty", "loading", "missing", "broken"} | {"content", "style", "contentKeys", "styleKeys"}
    assert named | said | {"mean", "relu3_1", "relu4_1", "relu5_1"} == set(words()["en"])
