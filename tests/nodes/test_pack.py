"""The pack as the Comfy registry needs it: metadata, shipped files, the rules of its linters, example workflows."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import adaattn_core
from tests.comfyui.host import shipped_files
from tests.helpers.node_schemas import node_schemas

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
TEMPLATES = sorted((ROOT / "example_workflows").glob("*.json"))
WORKFLOWS = [*TEMPLATES, *sorted((ROOT / "subgraphs").glob("*.json"))]

ACCELERATORS = {
    f"Environment :: {name}"
    for name in (
        "GPU :: NVIDIA CUDA",
        "GPU :: AMD ROCm",
        "GPU :: Intel Arc",
        "NPU :: Huawei Ascend",
        "GPU :: Apple Metal",
    )
}
"""The Environment classifiers that the registry accepts."""

TITLE, GAP = 30, 10
"""Pixels: height of a node's title bar, which its position and size leave out, and least distance between nodes."""


# ---------------------------------------------------------------- metadata


def test_the_registry_can_show_the_pack() -> None:
    project, comfy = PROJECT["project"], PROJECT["tool"]["comfy"]
    assert project["version"] == adaattn_core.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"])
    assert {"PublisherId", "DisplayName", "Icon", "Banner", "requires-comfyui"} <= set(comfy)
    assert "Repository" in project["urls"]
    assert {line for line in project["classifiers"] if line.startswith("Environment")} <= ACCELERATORS


def test_the_web_folder_is_declared_once() -> None:
    assert "web" not in PROJECT["tool"]["comfy"], "WEB_DIRECTORY already names it: the scripts would load twice"


@pytest.mark.parametrize(("key", "sides"), [("Icon", (1, 1)), ("Banner", (21, 9))])
def test_icon_and_banner_are_in_the_repository(key: str, sides: tuple[int, int]) -> None:
    address = PROJECT["tool"]["comfy"][key]
    with Image.open(ROOT / address.partition("/main/")[2]) as picture:
        assert picture.width * sides[1] == picture.height * sides[0]


# ---------------------------------------------------------------- what is shipped


@pytest.fixture(scope="module")
def shipped() -> list[str]:
    if shutil.which("git") is None or subprocess.run(["git", "-C", ROOT, "rev-parse"], capture_output=True).returncode:
        pytest.skip("needs git and a clone of the repository")
    return shipped_files()


def test_every_file_that_the_pack_needs_is_shipped(shipped: list[str]) -> None:
    needed = ["__init__.py", "pyproject.toml", "LICENSE", "README.md"]
    needed += [f"adaattn_core/weights/{name}" for name in ("README.md", "LICENSE", "compact.safetensors")]
    needed += [f"adaattn_core/weights/{name}" for name in ("LICENSE-VGG19", "vgg19.safetensors")]
    needed += [
        str(path.relative_to(ROOT)) for folder in ("nodes", "adaattn_core") for path in (ROOT / folder).rglob("*.py")
    ]
    for folder in ("web", "locales", "example_workflows", "subgraphs", "examples"):
        needed += [path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*.*") if path.is_file()]
    assert set(needed) - set(shipped) == set()


def test_licences_of_the_weights_are_declared_and_vgg19_is_attributed() -> None:
    """CC BY 4.0 asks for the authors, the licence, and what was changed."""
    declared = {path for pattern in PROJECT["project"]["license-files"] for path in ROOT.glob(pattern)}
    assert set((ROOT / "adaattn_core" / "weights").glob("LICENSE*")) <= declared
    text = (ROOT / "adaattn_core" / "weights" / "LICENSE-VGG19").read_text(encoding="utf-8")
    for needed in ("K. Simonyan and A. Zisserman", "Very Deep Convolutional Networks", "CC BY 4.0", "Changes"):
        assert needed in text


def test_the_oldest_torch_of_the_checks_is_the_oldest_that_is_declared() -> None:
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    for name in ("torch", "torchvision"):
        (oldest,) = re.findall(rf"^{name}>=([\d.]+)$", "\n".join(PROJECT["project"]["dependencies"]), re.MULTILINE)
        assert f'"{name}=={oldest}.*"' in workflow


def test_files_for_development_are_not_shipped(shipped: list[str]) -> None:
    folders = {name.partition("/")[0] for name in shipped if "/" in name}
    assert folders & {"tests", "benchmarks", "docs", ".ci", ".github"} == set()
    assert not {"CONTRIBUTING.md", "MANIFEST.in"} & set(shipped)


# ---------------------------------------------------------------- rules of the linters


FORBIDDEN = {
    r"(?<![\w.])(?:torch\.)?nn\.(?:Linear|Conv(?:Transpose)?[123]d|LayerNorm|GroupNorm|Embedding)\s*\(": (
        "import the layer by name"
    ),
    r"torch\.(?:cuda\.)?(?:amp\.)?autocast\s*\(": "import autocast by name",
    r"\.cuda\s*\(|\.to\s*\(\s*[\"']cuda": "the device comes from outside",
}
"""Patterns that comfy-test lint refuses anywhere in the pack, and what to write instead."""


def sources() -> list[Path]:
    folders = ("adaattn_core", "nodes", "benchmarks", "docs", "tests")
    return [*ROOT.glob("*.py"), *(path for folder in folders for path in (ROOT / folder).rglob("*.py"))]


def refused_lines(source: str) -> list[str]:
    return [
        f"line {number}: {remedy}"
        for number, line in enumerate(source.splitlines(), 1)
        for pattern, remedy in FORBIDDEN.items()
        if re.search(pattern, line)
    ]


@pytest.mark.parametrize(
    "source", ["x = nn.Conv2d" + "(3, 3)", "with torch.autocast" + '("cpu"):', "x.to" + '("cuda:0")']
)
def test_a_refused_pattern_is_found(source: str) -> None:
    assert len(refused_lines(source)) == 1


def test_the_sources_pass_the_linter_of_the_node_ecosystem() -> None:
    refused = [f"{path}, {line}" for path in sources() for line in refused_lines(path.read_text(encoding="utf-8"))]
    assert refused == []


def test_sources_can_be_read_as_cp1252() -> None:
    """Tools on Windows may read them so; other characters are written as escapes."""
    for path in sources():
        text = path.read_text(encoding="utf-8")
        others = {f"U+{ord(char):04X}" for char in text if not char.encode("cp1252", "ignore")}
        assert not others, f"{path} holds {others}"


# ---------------------------------------------------------------- search


@pytest.mark.parametrize("words", ["style transfer", "neural style", "adaattn"])
def test_a_search_for_the_method_finds_stylize_alone(words: str) -> None:
    """By its aliases: nodes that share them are listed beside it, in any order."""
    found = [
        node
        for node, schema in node_schemas().items()
        if any(words in alias.lower() for alias in schema.search_aliases)
    ]
    assert found == ["AdaAttN_Stylize"]


# ---------------------------------------------------------------- example workflows


def boxes(workflow: dict[str, Any]) -> dict[str, tuple[float, float, float, float]]:
    """Node -> left, top, right, bottom, title bar included."""
    places = {}
    for node in workflow["nodes"]:
        (left, top), (width, height) = node["pos"], node["size"]
        places[f"{node['id']} {node['type']}"] = (left, top - TITLE, left + width, top + height)
    return places


def touching(places: dict[str, tuple[float, float, float, float]]) -> list[tuple[str, str]]:
    def apart(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
        return any(a[side + 2] + GAP <= b[side] or b[side + 2] + GAP <= a[side] for side in (0, 1))

    return [(a, b) for a, b in combinations(places, 2) if not apart(places[a], places[b])]


def test_touching_nodes_are_found() -> None:
    assert touching({"a": (0, 0, 10, 10), "b": (15, 0, 30, 10), "c": (40, 0, 50, 10)}) == [("a", "b")]


def test_there_are_several_examples() -> None:
    assert len(TEMPLATES) >= 6


def test_examples_are_numbered_so_that_sorting_by_name_keeps_their_order() -> None:
    """Also by a host that compares character by character, where 10 comes before 2."""
    numbers = [path.stem.partition("_")[0] for path in TEMPLATES]
    assert numbers == [f"{number:02}" for number in range(1, len(TEMPLATES) + 1)]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_the_note_of_an_example_names_the_file_that_it_needs(path: Path) -> None:
    """With the address that ComfyUI's dialog for missing models offers: where it cannot, the note is all there is."""
    nodes = json.loads(path.read_text(encoding="utf-8"))["nodes"]
    notes = "".join(str(node["widgets_values"]) for node in nodes if node["type"] == "MarkdownNote")
    for model in (model for node in nodes for model in node["properties"].get("models", [])):
        assert model["name"] in notes and f"({model['url']})" in notes
        assert f"models/{model['directory']}" in notes


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_an_example_is_tidy(path: Path) -> None:
    workflow = json.loads(path.read_text(encoding="utf-8"))
    assert workflow["version"] == 0.4
    assert path.with_suffix(".jpg").is_file(), "an example needs a thumbnail"
    assert touching(boxes(workflow)) == []
    assert workflow["groups"] and all(group["title"] for group in workflow["groups"])
    assert any(node["type"] == "MarkdownNote" for node in workflow["nodes"]), "no note says what to try"


def empty_fields(tree: Any, path: str = "") -> Iterator[str]:
    """Paths of null values, other than sockets without a link."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        if value is None and key not in ("link", "links"):
            yield f"{path}{key}"
        yield from empty_fields(value, f"{path}{key}.")


def test_empty_fields_are_found() -> None:
    assert list(empty_fields({"a": [{"link": None, "pos": None}], "b": None})) == ["a.0.pos", "b"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_has_no_empty_fields(path: Path) -> None:
    """Newer versions of the page write null for an absent value; ComfyUI 0.3.64 shows an alert for it."""
    assert list(empty_fields(json.loads(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_an_example_uses_the_pictures_that_ship(path: Path) -> None:
    kinds = {node["type"] for node in json.loads(path.read_text(encoding="utf-8"))["nodes"]}
    assert "LoadImage" not in kinds, "a newcomer's input folder is empty; use AdaAttN_ExamplePicture"
