"""Imports of adaattn_core point one way, away from ComfyUI, and importing it does nothing else."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "adaattn_core"

FLOW = (
    "devices",
    "images",
    "finding",
    "strips",
    "winograd",
    "encoder",
    "parallel",
    "screening",
    "streaming",
    "moments",
    "attention",
    "fusion",
    "gradual",
    "decoder",
    "model",
    "memory",
    "checkpoint",
    "download",
    "published",
    "masks",
    "windows",
    "painting",
    "mixing",
    "heatmap",
    "stylize",
    "ablation",
    "sheet",
    "steady",
    "video",
    "metrics",
    "losses",
    "distill",
    "progress",
    "overlap",
    "muon",
    "sources",
    "workers",
    "data",
    "losscurve",
    "board",
    "trainlog",
    "stopping",
    "distributed",
    "train_config",
    "train_losses",
    "train_state",
    "train_run",
    "train",
    "train_bench",
    "judges",
    "panel",
    "bench",
    "curve",
    "subjects",
    "evaluate",
    "cost",
    "artfid",
    "summary",
    "scatter",
    "report_style",
    "report",
    "gallery",
    "commands",
    "cli",
    "__main__",
)
"""Modules in the order of the data; each may import those above it. A new module takes its place here.
`commands` is a folder, whose files may import each other."""

FOREIGN = ("comfy", "comfy_api", "comfy_execution", "comfy_extras", "folder_paths", "nodes", "server", "execution")
"""ComfyUI's modules, and our own nodes: core works without them."""


def imported_modules(source: str, package: str = PACKAGE) -> Iterator[str]:
    """Absolute names of all that a module of a package imports, anywhere in it, late imports included.

    `from . import x` may mean the module x, so it counts as one, but for `__version__`; what is imported relative to a
    folder above adaattn_core comes out as `..`. What a file does only when run as a program is left out.
    """
    for node in ast.walk(_as_module(source)):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                folders = package.split(".")
                start = folders[: len(folders) + 1 - level] or [".."] if level else []
                parts = [part for part in (*start, module) if part]
                if parts == [PACKAGE]:
                    yield from (f"{PACKAGE}.{alias.name}" for alias in names if alias.name != "__version__")
                else:
                    yield ".".join(parts)
            case ast.Call(
                func=ast.Name(id="__import__") | ast.Attribute(attr="import_module") | ast.Name(id="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield name


def _as_module(source: str) -> ast.Module:
    """Without `if __name__ == "__main__":`."""
    tree = ast.parse(source)
    guard = ast.dump(ast.parse("__name__ == '__main__'", mode="eval").body)
    tree.body = [node for node in tree.body if not (isinstance(node, ast.If) and ast.dump(node.test) == guard)]
    return tree


def violations(module: str, source: str) -> list[str]:
    """Imports that a module of the package must not have, each with the reason; `__init__` may import any module."""
    module, _, inner = module.partition("/")
    allowed = FLOW if module == "__init__" else FLOW[: FLOW.index(module) + bool(inner)]
    found = []
    for name in imported_modules(source, f"{PACKAGE}.{module}" if inner else PACKAGE):
        top, _, rest = name.partition(".")
        child = rest.partition(".")[0]
        if top in FOREIGN or not top:
            found.append(f"{module} imports {name}, which is not core's")
        elif top == PACKAGE and child not in allowed:
            found.append(f"{module} imports {child or PACKAGE}, which does not stand above it in the flow")
    return found


def sources() -> dict[str, str]:
    """Module name, or commands/name -> source."""
    folder = ROOT / PACKAGE
    paths = [*sorted(folder.glob("*.py")), *sorted(folder.glob("commands/*.py"))]
    return {path.relative_to(folder).with_suffix("").as_posix(): path.read_text(encoding="utf-8") for path in paths}


def test_every_module_has_its_place_in_the_flow() -> None:
    unknown = {module.partition("/")[0] for module in sources()} - {*FLOW, "__init__"}
    assert not unknown, f"{unknown} are not in FLOW: say what they may import by giving them a place there"


def test_imports_point_one_way() -> None:
    places = {*FLOW, "__init__"}
    known = {module: source for module, source in sources().items() if module.partition("/")[0] in places}
    wrong = [line for module, source in known.items() for line in violations(module, source)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "source",
    [
        "from .stylize import stylize",
        "from . import stylize",
        "from adaattn_core.stylize import stylize",
        "from adaattn_core import stylize",
        "import adaattn_core.stylize",
        "import adaattn_core",
        "from .model import ModelConfig",  # itself
        "def late() -> None:\n    from .stylize import stylize",
        "if TYPE_CHECKING:\n    from .stylize import stylize",
        "importlib.import_module('adaattn_core.stylize')",
        "__import__('comfy')",
        "import comfy.model_management as mm",
        "from comfy.utils import ProgressBar",
        "import folder_paths",
        "import os, nodes",
        "import server",
        "from .. import nodes",
        "from ..nodes import bridge",
    ],
)
def test_a_wrong_import_is_found(source: str) -> None:
    assert len(violations("model", source)) == 1


@pytest.mark.parametrize(
    "source", ["from ..cli import main", "from .. import cli", "from ... import nodes", "from ...nodes import bridge"]
)
def test_a_wrong_import_in_a_command_is_found(source: str) -> None:
    assert len(violations("commands/info", source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "from ..stylize import stylize",
        "from .errors import explain",
        "from . import errors",
        "from .. import __version__",
    ],
)
def test_a_right_import_in_a_command_is_not(source: str) -> None:
    assert violations("commands/info", source) == []


@pytest.mark.parametrize(
    "source",
    [
        "from .decoder import Decoder",
        "from . import decoder",
        "from torch import nn",
        "import servers",
        "'import comfy'",
        "if __name__ == '__main__':\n    from .cli import main",
    ],
)
def test_a_right_import_is_not(source: str) -> None:
    assert violations("model", source) == []


# ---------------------------------------------------------------- what importing does

PROBE = """
import importlib, random, sys

module, *dependencies = sys.argv[1:]
for name in dependencies:
    importlib.import_module(name)

def generators():
    states = [random.getstate()]
    if "numpy" in sys.modules:
        kind, keys, *rest = sys.modules["numpy"].random.get_state()
        states.append((kind, keys.tobytes(), *rest))
    if "torch" in sys.modules:
        states.append(bytes(sys.modules["torch"].get_rng_state().tolist()))
    return states

CODE = (".py", ".pyc", ".so", ".pyd", ".dll", ".dylib")
ACTS = ("socket.", "subprocess.", "http.", "urllib.", "os.system", "os.mkdir", "os.remove", "os.rename", "os.rmdir")
done = []

def watch(event, arguments):
    if event == "open" and not str(arguments[0]).endswith(CODE):
        done.append(f"opens {arguments[0]}")
    elif event.startswith(ACTS):
        done.append(f"does {event} {arguments}")

before = generators()
sys.addaudithook(watch)
importlib.import_module(module)
found = list(done)
if generators() != before:
    found.append("draws from a global generator")
if "torch" in sys.modules and sys.modules["torch"].cuda.is_initialized():
    found.append("starts the GPU")
found += [f"loads {name}" for name in FOREIGN if name in sys.modules]
for line in found:
    print(line)
"""


def effects_of_importing(module: str, folder: Path, dependencies: tuple[str, ...] = ()) -> list[str]:
    """What importing a module of `folder` does besides loading code, its dependencies' imports aside."""
    probe = f"FOREIGN = {FOREIGN!r}\n{PROBE}"
    command = [sys.executable, "-B", "-c", probe, module, *dependencies]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def test_importing_the_package_does_nothing_else() -> None:
    dependencies = ("torch", "torch.utils.checkpoint", "numpy", "PIL.Image", "safetensors.torch", "einops")
    assert effects_of_importing(PACKAGE, ROOT, dependencies) == []


def test_an_import_with_side_effects_is_found(tmp_path: Path) -> None:
    (tmp_path / "comfy.py").write_text("")
    (tmp_path / "data.txt").write_text("")
    (tmp_path / "busy.py").write_text(
        "import random, socket, comfy\nopen('data.txt').close()\nrandom.random()\n"
        "try:\n    socket.getaddrinfo('localhost', 1)\nexcept OSError:\n    pass\n"
    )
    effects = effects_of_importing("busy", tmp_path)
    for effect in ("opens data.txt", "does socket.getaddrinfo", "draws from a global generator", "loads comfy"):
        assert any(line.startswith(effect) for line in effects), f"{effect} is not in {effects}"
