"""The layers of adaattn_core hold, importing it has no side effects, and files and functions stay small."""

from __future__ import annotations

import ast
import importlib.util
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "adaattn_core"

FOREIGN = ("comfy", "comfy_api", "comfy_execution", "comfy_extras", "folder_paths", "nodes", "server", "execution")
"""Modules of ComfyUI, and our own nodes: the library works without them."""

LAYERS = "A layer imports only from the layers below it"
NO_COMFYUI = "The library imports neither ComfyUI nor the nodes"
PACKAGE_ITSELF = "Only the command line imports the package itself"
"""Beginnings of the names of the three contracts in pyproject.toml."""

needs_import_linter = pytest.mark.skipif(
    importlib.util.find_spec("importlinter") is None, reason='needs import-linter: pip install "adaattn[dev]"'
)


# ---------------------------------------------------------------- imports between modules


def lint_imports(folder: Path) -> tuple[int, str]:
    """Exit code and report of `lint-imports --no-cache` for the package and the pyproject.toml of a folder."""
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    result = subprocess.run(
        [sys.executable, "-B", "-c", program, "--no-cache", "--no-logo"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200", "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    return result.returncode, result.stdout + result.stderr


@pytest.fixture
def package_copy(tmp_path: Path) -> Path:
    """A folder with a copy of the sources of adaattn_core, to be changed, and of pyproject.toml."""
    shutil.copytree(ROOT / PACKAGE, tmp_path / PACKAGE, ignore=shutil.ignore_patterns("weights", "__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@needs_import_linter
def test_imports_follow_the_layers() -> None:
    code, report = lint_imports(ROOT)
    assert code == 0, report


@needs_import_linter
@pytest.mark.parametrize(
    ("module", "statement", "contract"),
    [
        ("models/model.py", "from ..inference.stylize import stylize", LAYERS),
        ("models/model.py", "def late() -> None:\n    from ..cli import main", LAYERS),
        ("models/model.py", "if TYPE_CHECKING:\n    from ..checkpoints import hub", LAYERS),
        ("training/losses.py", "from ..evaluation import metrics", LAYERS),
        ("commands/info.py", "from .. import cli", LAYERS),
        ("new_module.py", "", LAYERS),
        ("models/model.py", "import comfy.model_management as mm", NO_COMFYUI),
        ("commands/info.py", "def late() -> None:\n    import os, nodes", NO_COMFYUI),
        ("models/model.py", "from adaattn_core import stylize", PACKAGE_ITSELF),
        ("errors.py", "from . import __version__", PACKAGE_ITSELF),
    ],
)
def test_one_wrong_import_is_reported(package_copy: Path, module: str, statement: str, contract: str) -> None:
    with (package_copy / PACKAGE / module).open("a", encoding="utf-8") as file:
        file.write(f"\n{statement}\n")
    code, report = lint_imports(package_copy)
    assert code == 1
    assert any(line.startswith(contract) for line in report.splitlines()), report


def test_the_figure_of_the_layers_shows_the_imports_of_today() -> None:
    script = runpy.run_path(str(ROOT / "docs" / "architecture_figure.py"))
    assert script["TARGET"].read_text(encoding="utf-8") == script["figure"](), "run docs/architecture_figure.py"


def unseen_imports(source: str, depth: int) -> list[str]:
    """Imports that import-linter does not see: relative ones from outside the package, and modules named at run time.

    Args:
        source: of a module.
        depth: 1 for a module of adaattn_core itself, 2 for a module of one of its packages.
    """
    unseen = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.ImportFrom(level=level, module=module) if level > depth:
                unseen.append("." * level + (module or ""))
            case ast.Call(
                func=ast.Name(id="__import__" | "import_module") | ast.Attribute(attr="import_module"),
                args=[argument, *_],
            ):
                unseen.append(ast.unparse(argument))
    return unseen


LATE_IMPORTS = {"f'.{module}'", "'lpips'", "'art_fid.art_fid'", "'pillow_heif'", "'pillow_avif'", "'pillow_jxl'"}
"""The public names, and optional packages that `adaattn evaluate` or a picture's format needs: imported by name."""


def test_no_import_escapes_the_linter() -> None:
    for path in library_modules():
        depth = len(path.relative_to(ROOT / PACKAGE).parts)
        unseen = unseen_imports(path.read_text(encoding="utf-8"), depth)
        assert set(unseen) <= LATE_IMPORTS, f"{path} imports {unseen}"


@pytest.mark.parametrize(
    ("source", "depth"),
    [
        ("from .. import nodes", 1),
        ("from ..nodes import bridge", 1),
        ("def late():\n    from ...nodes import bridge", 2),
        ("importlib.import_module('adaattn_core.cli')", 2),
        ("import_module(name)", 2),
        ("__import__('comfy')", 2),
    ],
)
def test_an_import_that_escapes_the_linter_is_found(source: str, depth: int) -> None:
    assert len(unseen_imports(source, depth)) == 1


@pytest.mark.parametrize("source", ["from ..cli import main", "from . import losses", "import torch", "'import comfy'"])
def test_other_imports_are_left_to_the_linter(source: str) -> None:
    assert unseen_imports(source, 2) == []


# ---------------------------------------------------------------- side effects of importing

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
effects = []

def watch(event, arguments):
    if event == "open" and not str(arguments[0]).endswith(CODE):
        effects.append(f"opens {arguments[0]}")
    elif event.startswith(ACTS):
        effects.append(f"does {event} {arguments}")

before = generators()
sys.addaudithook(watch)
importlib.import_module(module)
report = list(effects)
if generators() != before:
    report.append("draws from a global generator")
if "torch" in sys.modules and sys.modules["torch"].cuda.is_initialized():
    report.append("starts the GPU")
report += [f"loads {name}" for name in FOREIGN if name in sys.modules]
for line in report:
    print(line)
"""


def effects_of_importing(module: str, folder: Path, dependencies: tuple[str, ...] = ()) -> list[str]:
    """Side effects of importing a module of `folder`, other than loading code; imports of its dependencies aside."""
    probe = f"FOREIGN = {FOREIGN!r}\n{PROBE}"
    command = [sys.executable, "-B", "-c", probe, module, *dependencies]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_importing_the_package_has_no_side_effects() -> None:
    dependencies = ("torch", "torch.utils.checkpoint", "numpy", "PIL.Image", "safetensors.torch", "einops")
    assert effects_of_importing(PACKAGE, ROOT, dependencies) == []


def test_side_effects_of_an_import_are_found(tmp_path: Path) -> None:
    (tmp_path / "comfy.py").write_text("")
    (tmp_path / "data.txt").write_text("")
    (tmp_path / "busy.py").write_text(
        "import random, socket, comfy\nopen('data.txt').close()\nrandom.random()\n"
        "try:\n    socket.getaddrinfo('localhost', 1)\nexcept OSError:\n    pass\n"
    )
    effects = effects_of_importing("busy", tmp_path)
    for effect in ("opens data.txt", "does socket.getaddrinfo", "draws from a global generator", "loads comfy"):
        assert any(line.startswith(effect) for line in effects), f"{effect} is not in {effects}"


# ---------------------------------------------------------------- sizes

MAX_MODULES = 12
MAX_LINES = 400
MAX_ARGUMENTS = 8

PUBLIC_CALLS = {"stylize", "encode_style", "refine", "execute"}
"""Functions that may have more arguments: their users name each one. `execute` is a node's, called by ComfyUI."""


def library_modules() -> list[Path]:
    return sorted((ROOT / PACKAGE).rglob("*.py"))


def our_files() -> Iterator[Path]:
    for folder in (PACKAGE, "nodes", "benchmarks", "docs", "tests"):
        yield from sorted((ROOT / folder).rglob("*.py"))


def argument_counts(source: str) -> Iterator[tuple[str, int]]:
    """Name and number of arguments of every function of a module, `self` and `cls` aside."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            signature = node.args
            arguments = [*signature.posonlyargs, *signature.args, *signature.kwonlyargs]
            arguments += [extra for extra in (signature.vararg, signature.kwarg) if extra]
            yield node.name, sum(argument.arg not in ("self", "cls") for argument in arguments)


def test_arguments_are_counted() -> None:
    source = "class A:\n    async def f(self, a, /, b, *c, d=1, **e): ...\ndef g(): ..."
    assert set(argument_counts(source)) == {("f", 5), ("g", 0)}


def test_packages_are_small() -> None:
    folders = [path.parent for path in (ROOT / PACKAGE).rglob("__init__.py")]
    assert len(folders) > 1
    large = [folder.name for folder in folders if len(list(folder.glob("*.py"))) > MAX_MODULES]
    assert large == [], f"more than {MAX_MODULES} modules"


def test_files_are_short() -> None:
    long = [
        path.relative_to(ROOT).as_posix()
        for path in our_files()
        if len(path.read_text(encoding="utf-8").splitlines()) > MAX_LINES
    ]
    assert long == [], f"more than {MAX_LINES} lines"


def test_functions_have_few_arguments() -> None:
    wide = [
        f"{path.relative_to(ROOT).as_posix()}: {name}"
        for path in our_files()
        for name, count in argument_counts(path.read_text(encoding="utf-8"))
        if count > MAX_ARGUMENTS and name not in PUBLIC_CALLS
    ]
    assert wide == [], f"more than {MAX_ARGUMENTS} arguments"


@pytest.mark.parametrize("path", sorted((ROOT / PACKAGE).glob("*/__init__.py")), ids=lambda path: path.parent.name)
def test_a_package_is_a_docstring(path: Path) -> None:
    """It says what the package is for and imports nothing, so that importing one module loads no other."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    assert len(tree.body) == 1, "a package's __init__ holds its docstring alone"
