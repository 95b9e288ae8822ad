"""The attention viewer's part of the pack: the scripts of the library, and a page that can load them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from adaattn_core.viewer.view_page import FOLDER
from tests.helpers.comfy_pack import ROOT

WEB = ROOT / "web"
EXTENSION = WEB / "attention_map.js"


def test_the_page_has_the_scripts_of_the_library() -> None:
    """A wheel holds adaattn_core alone, and ComfyUI serves web alone; cp adaattn_core/viewer/*.mjs web/viewer/"""
    library = {path.name: path.read_bytes() for path in FOLDER.glob("*.mjs")}
    assert library == {path.name: path.read_bytes() for path in (WEB / "viewer").iterdir()}


def test_what_the_scripts_import_is_there() -> None:
    for path in (EXTENSION, *(WEB / "viewer").glob("*.mjs")):
        for name in re.findall(r'from "(\.[^"]+)"', path.read_text(encoding="utf-8")):
            assert name.startswith("../../scripts/") or (path.parent / name).is_file(), f"{path.name}: {name}"


def test_helpers_are_no_extensions() -> None:
    """ComfyUI loads every .js file of the pack into its page, and no .mjs file."""
    assert {path.suffix for path in (WEB / "viewer").iterdir()} == {".mjs"}


@pytest.mark.parametrize("path", [EXTENSION, *sorted(FOLDER.glob("*.mjs"))], ids=lambda path: path.name)
def test_the_scripts_leave_the_page_alone(path: Path) -> None:
    """No global variable, no style sheet of the page, no timer; names are text and never HTML."""
    script = path.read_text(encoding="utf-8")
    forbidden = r"\bwindow\.|globalThis|document\.head|setInterval|innerHTML|outerHTML|insertAdjacentHTML|\beval\("
    assert re.findall(forbidden, script) == []


def test_the_node_and_the_page_agree_on_the_name_of_the_output() -> None:
    (name,) = re.findall(r'ui=\{"(\w+)"', (ROOT / "nodes" / "attention_map.py").read_text(encoding="utf-8"))
    assert f'KEPT = "{name}"' in EXTENSION.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", [EXTENSION, *sorted(FOLDER.glob("*.mjs"))], ids=lambda path: path.name)
def test_the_scripts_are_javascript(path: Path, tmp_path: Path) -> None:
    if shutil.which("node") is None:
        pytest.skip("needs Node.js: put `node` on the PATH to check the scripts")
    module = tmp_path / "module.mjs"
    module.write_bytes(path.read_bytes())
    result = subprocess.run(["node", "--check", str(module)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
