"""What the wheel and the source distribution hold, and how large they are."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[1]
BUILD = """
import setuptools.build_meta as backend
print(backend.build_wheel("dist"), backend.build_sdist("dist"), file=open("names.txt", "w"))
"""
BUDGET_MB = 60
"""Most that the built-in weights, and so the files, may take."""
DATA = {".safetensors", ".mjs", ".html", ".css", ".js", ".j2", ".md", ".typed", ".jpg", ""}
"""Suffixes of files other than Python's in the package; licences have none."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder dist/, built from a copy without tests, examples and docs."""
    pytest.importorskip("setuptools", minversion="77", reason='needs setuptools 77: pip install "setuptools>=77"')
    folder = tmp_path_factory.mktemp("source")
    shutil.copytree(ROOT / "adaattn_core", folder / "adaattn_core", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, folder)
    done = subprocess.run([sys.executable, "-c", BUILD], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "dist"


def package_files() -> set[str]:
    files = (ROOT / "adaattn_core").rglob("*")
    return {path.relative_to(ROOT).as_posix() for path in files if path.is_file() and "__pycache__" not in path.parts}


def test_the_wheel_holds_the_package_and_its_licences(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    assert wheel.stat().st_size < BUDGET_MB * 1e6
    names = zipfile.ZipFile(wheel).namelist()
    assert {name for name in names if ".dist-info/" not in name} == package_files()
    licences = {name.partition("licenses/")[2] for name in names if "/licenses/" in name}
    assert licences == {
        "LICENSE", "adaattn_core/weights/LICENSE", "adaattn_core/weights/LICENSE-VGG19",
    }  # fmt: skip


def test_the_source_distribution_holds_the_package_and_no_tests(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    assert archive.stat().st_size < BUDGET_MB * 1e6
    with tarfile.open(archive) as file:
        names = {str(PurePosixPath(*PurePosixPath(member.name).parts[1:])) for member in file if member.isfile()}
    assert package_files() <= names
    others = {name for name in names - package_files() if not name.startswith("adaattn.egg-info/")}
    assert others == {"LICENSE", "MANIFEST.in", "PKG-INFO", "README.md", "pyproject.toml", "setup.cfg"}


def test_no_stray_file_is_packed() -> None:
    assert {Path(name).suffix for name in package_files()} - {".py"} <= DATA
