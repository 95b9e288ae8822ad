"""The pack as the Comfy registry takes it: metadata, the files it ships, the habits its linters ask for."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import adaattn_core
from tests.comfyui.host import shipped_files

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
"""All that the registry accepts as an Environment."""

TITLE, GAP = 30, 10
"""Pixels of a node's title bar, which its position and size leave out, and the least distance between two nodes."""


# ---------------------------------------------------------------- metadata


def test_the_registry_can_show_the_pack() -> None:
    project, comfy = PROJECT["project"], PROJECT["tool"]["comfy"]
    assert project["version"] == adaattn_core.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"])
    assert {"PublisherId", "DisplayName", "Icon", "Banner", "requires-comfyui"} <= set(comfy)
    assert "Repository" in project["urls"]
    assert {one for one in project["classifiers"] if one.startswith("Environment")} <= ACCELERATORS


def test_the_page_files_are_announced_once() -> None:
    assert "web" not in PROJECT["tool"]["comfy"], "WEB_DIRECTORY already names them: the scripts would load twice"


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


def test_all_that_the_pack_needs_is_shipped(shipped: list[str]) -> None:
    needed = ["__init__.py", "pyproject.toml", "LICENSE", "README.md"]
    needed += [f"adaattn_core/weights/{name}" for name in ("README.md", "LICENSE", "compact.safetensors")]
    needed += [f"adaattn_core/weights/{name}" for name in ("LICENSE-VGG19", "vgg19.safetensors")]
    needed += [
        str(path.relative_to(ROOT)) for folder in ("nodes", "adaattn_core") for path in (ROOT / folder).rglob("*.py")
    ]
    for folder in ("web", "locales", "example_workflows", "subgraphs", "examples"):
        needed += [path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*.*") if path.is_file()]
    assert set(needed) - set(shipped) == set()


def test_data_files_of_the_library_are_in_the_wheel() -> None:
    patterns = PROJECT["tool"]["setuptools"]["package-data"]
    for path in (ROOT / "adaattn_core").rglob("*.*"):
        if path.is_file() and path.suffix not in (".py", ".pyc"):
            package = ".".join(path.parent.relative_to(ROOT).parts)
            assert any(path.match(pattern) for pattern in patterns.get(package, [])), f"{path} is in no package-data"


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


def test_what_only_development_needs_is_not(shipped: list[str]) -> None:
    folders = {name.partition("/")[0] for name in shipped if "/" in name}
    assert folders & {"tests", "benchmarks", "docs", ".ci", ".github"} == set()
    assert not {"CONTRIBUTING.md", "MANIFEST.in"} & set(shipped)


# ---------------------------------------------------------------- habits


FORBIDDEN = {
    r"(?<![\w.])(?:torch\.)?nn\.(?:Linear|Conv(?:Transpose)?[123]d|LayerNorm|GroupNorm|Embedding)\s*\(": (
        "import the layer by name"
    ),
    r"torch\.(?:cuda\.)?(?:amp\.)?autocast\s*\(": "import autocast by name",
    r"\.cuda\s*\(|\.to\s*\(\s*[\"']cuda": "the device comes from outside",
}
"""What comfy-test lint refuses in the whole pack, by spelling, and what to write instead."""


def sources() -> list[Path]:
    folders = ("adaattn_core", "nodes", "benchmarks", "docs", "tests")
    return [*ROOT.glob("*.py"), *(path for folder in folders for path in (ROOT / folder).rglob("*.py"))]


def refused(source: str) -> list[str]:
    return [
        f"line {number}: {cure}"
        for number, line in enumerate(source.splitlines(), 1)
        for wrong, cure in FORBIDDEN.items()
        if re.search(wrong, line)
    ]


@pytest.mark.parametrize(
    "source", ["x = nn.Conv2d" + "(3, 3)", "with torch.autocast" + '("cpu"):', "x.to" + '("cuda:0")']
)
def test_what_the_linter_refuses_is_found(source: str) -> None:
    assert len(refused(source)) == 1


def test_the_sources_pass_the_linter_of_the_node_ecosystem() -> None:
    found = [f"{path}, {line}" for path in sources() for line in refused(path.read_text(encoding="utf-8"))]
    assert found == []


def test_sources_are_readable_where_text_is_cp1252() -> None:
    """On Windows, by tools that do not ask for UTF-8; other characters are written as escapes."""
    for path in sources():
        text = path.read_text(encoding="utf-8")
        wrong = {f"U+{ord(one):04X}" for one in text if not one.encode("cp1252", "ignore")}
        assert not wrong, f"{path} holds {wrong}"


# ---------------------------------------------------------------- example workflows


def boxes(workflow: dict[str, Any]) -> dict[str, tuple[float, float, float, float]]:
    """Node -> left, top, right, bottom, with its title bar."""
    places = {}
    for node in workflow["nodes"]:
        (left, top), (width, height) = node["pos"], node["size"]
        places[f"{node['id']} {node['type']}"] = (left, top - TITLE, left + width, top + height)
    return places


def touching(places: dict[str, tuple[float, float, float, float]]) -> list[tuple[str, str]]:
    def apart(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
        return any(a[side + 2] + GAP <= b[side] or b[side + 2] + GAP <= a[side] for side in (0, 1))

    names = list(places)
    return [
        (one, other)
        for index, one in enumerate(names)
        for other in names[index + 1 :]
        if not apart(places[one], places[other])
    ]


def test_touching_nodes_are_found() -> None:
    assert touching({"a": (0, 0, 10, 10), "b": (15, 0, 30, 10), "c": (40, 0, 50, 10)}) == [("a", "b")]


def test_there_are_examples_for_every_use() -> None:
    assert len(TEMPLATES) >= 6


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_an_example_is_tidy(path: Path) -> None:
    workflow = json.loads(path.read_text(encoding="utf-8"))
    assert workflow["version"] == 0.4
    assert path.with_suffix(".jpg").is_file(), "an example needs a thumbnail"
    assert touching(boxes(workflow)) == []
    assert workflow["groups"] and all(group["title"] for group in workflow["groups"])
    assert any(node["type"] == "MarkdownNote" for node in workflow["nodes"]), "a note says what to try"


def empty_fields(tree: Any, path: str = "") -> Iterator[str]:
    """Paths of what is null, other than sockets without a link."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        if value is None and key not in ("link", "links"):
            yield f"{path}{key}"
        yield from empty_fields(value, f"{path}{key}.")


def test_empty_fields_are_found() -> None:
    assert list(empty_fields({"a": [{"link": None, "pos": None}], "b": None})) == ["a.0.pos", "b"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_has_no_empty_fields(path: Path) -> None:
    """Newer pages write null where they have nothing to say; on ComfyUI 0.3.64 that raises an alert."""
    assert list(empty_fields(json.loads(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_an_example_brings_its_pictures(path: Path) -> None:
    kinds = {node["type"] for node in json.loads(path.read_text(encoding="utf-8"))["nodes"]}
    assert "LoadImage" not in kinds, "a newcomer's input folder is empty; use AdaAttN_ExamplePicture"
