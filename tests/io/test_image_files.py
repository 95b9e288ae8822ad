"""Pictures are found in folders and by glob patterns, in order and each once."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaattn_core.errors import ImageError
from adaattn_core.io.image_files import find_images


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
        ("empty", "empty holds no picture; at least one is needed. Check the folder or the pattern."),
        ("*.tif", "*.tif holds no picture; at least one is needed. Check the folder or the pattern."),
    ],
)
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
