"""Pictures are found in folders and by glob patterns, in order and each once."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from adaattn_core.errors import ImageError
from adaattn_core.io.image_files import find_images, search_images


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (
        "b.png",
        "a.JPG",
        "notes.txt",
        "sub/c.webp",
        ".hidden.png",
        ".cache/d.png",
        "odd[1].png",
        "empty/x.txt",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["."], ["a.JPG", "b.png", "odd[1].png", "sub/c.webp"]),
        (["b.png", "a.JPG"], ["b.png", "a.JPG"]),  # the order given
        (["b.png", ".", "./b.png"], ["b.png", "a.JPG", "odd[1].png", "sub/c.webp"]),
        (["*.png"], ["b.png", "odd[1].png"]),
        (["**/*"], ["a.JPG", "b.png", "odd[1].png", "sub/c.webp"]),
        (["odd[1].png"], ["odd[1].png"]),  # a file first, a glob second
        (["notes.txt"], ["notes.txt"]),  # named outright: reading it will tell
        ([".hidden.png"], [".hidden.png"]),
        ("sub", ["sub/c.webp"]),
        ([], []),
    ],
)
def test_find_images(tree: Path, patterns: list[str | Path], expected: list[str]) -> None:
    assert [path.as_posix() for path in find_images(patterns)] == expected
    assert find_images([tree / "sub"]) == [tree / "sub" / "c.webp"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("none.png", "none.png does not exist. Check its name and folder."),
        ("x" * 300, "x" * 300 + " does not exist. Check its name and folder."),
        ("empty", "empty holds no picture, only 1 other file (.txt); at least one is needed. "
                  "Check the folder or the pattern."),
        ("*.txt", "*.txt holds no picture, only 1 other file (.txt); at least one is needed. "
                  "Check the folder or the pattern."),
        ("*.tif", "*.tif holds no picture; at least one is needed. Check the folder or the pattern."),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("tree")
def test_find_images_errors(pattern: str, message: str) -> None:
    with pytest.raises(ImageError) as caught:
        find_images(["b.png", pattern])
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("patterns", "without", "expected"),
    [
        (["."], "sub", ["a.JPG", "b.png", "odd[1].png"]),
        (["."], "./sub/", ["a.JPG", "b.png", "odd[1].png"]),
        (["**/*.*"], "sub", ["a.JPG", "b.png", "odd[1].png"]),
        (["sub"], "sub", ["sub/c.webp"]),  # asked for by name
        (["sub/*"], "sub", ["sub/c.webp"]),
        ([".", "sub/c.webp"], "sub", ["a.JPG", "b.png", "odd[1].png", "sub/c.webp"]),
        (["."], ".", ["a.JPG", "b.png", "odd[1].png", "sub/c.webp"]),
        (["."], "elsewhere", ["a.JPG", "b.png", "odd[1].png", "sub/c.webp"]),
        (["."], "sub/c.webp", ["a.JPG", "b.png", "odd[1].png", "sub/c.webp"]),
    ],
)
@pytest.mark.usefixtures("tree")
def test_results_of_earlier_runs_are_skipped(patterns: list[str], without: str, expected: list[str]) -> None:
    assert [path.as_posix() for path in find_images(patterns, without)] == expected


@pytest.mark.skipif(os.name != "posix", reason="links need a right of their own on Windows")
@pytest.mark.parametrize("pattern", [".", "**/*.png", "**/*", "**"])
def test_links_to_folders_are_followed_and_circles_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("outside/o.png", "p/a/1.png", "p/b/2.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    Path("p/a/outside").symlink_to(tmp_path / "outside")
    Path("p/a/circle").symlink_to(tmp_path / "p")
    Path("p/a/to_b").symlink_to("../b")
    Path("p/b/to_a").symlink_to("../a")
    Path("p/nowhere").symlink_to("none")
    Path("p/itself").symlink_to("itself")
    monkeypatch.chdir(tmp_path / "p")
    assert [path.as_posix() for path in find_images([pattern])] == ["a/1.png", "a/outside/o.png", "b/2.png"]


@pytest.mark.skipif(os.name != "posix", reason="links need a right of their own on Windows")
def test_results_in_a_linked_folder_are_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("p/a.png", "other/b.png", "other/out/result.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    Path("p/link").symlink_to(tmp_path / "other")
    assert [path.as_posix() for path in find_images(["p"], "other/out")] == ["p/a.png", "p/link/b.png"]


def test_a_folder_that_cannot_be_read_is_reported(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def denied(folder: Path) -> Any:
        if Path(folder).name == "sub":
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", denied)
    line = "sub cannot be read: Permission denied. Check its permissions."
    for pattern in (".", "*/*.webp", "**/*.webp", "sub"):
        images, unreadable = search_images([pattern])
        assert unreadable == [line]
        assert len(images) == (3 if pattern == "." else 0)
        with pytest.raises(ImageError, match=r"^sub cannot be read: Permission denied\. Check its permissions\.$"):
            find_images([pattern])
