"""Picture files that paths, folders and glob patterns name."""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Sequence
from pathlib import Path

from ..errors import ImageError
from .files import StrPath
from .images import READ_SUFFIXES


def find_images(patterns: Sequence[StrPath], without: StrPath | None = None) -> list[Path]:
    """The picture files that `patterns` name, in their order and each once.

    Args:
        patterns: files (of any suffix), folders (searched recursively, hidden names skipped) or glob patterns (`**`
            matches folders). Folders and globs give only files with a known picture suffix, sorted.
        without: a folder for results. If it lies inside a folder or glob, its files, which earlier runs have left
            there, are skipped.

    Raises:
        ImageError: a file does not exist, or a folder or glob holds no picture.
    """
    files: dict[str, Path] = {}
    for pattern in [patterns] if isinstance(patterns, str | os.PathLike) else patterns:
        paths = [Path(pattern)] if os.path.isfile(pattern) else _search(Path(pattern), without)
        for path in paths:
            files.setdefault(os.path.abspath(path), path)
    return list(files.values())


def _search(pattern: Path, without: StrPath | None) -> list[Path]:
    """The picture files in a folder or of a glob."""
    if os.path.isdir(pattern):
        files = [Path(folder, name) for folder, _, names in os.walk(pattern) for name in names]
        paths = [file for file in files if not any(p.startswith(".") for p in file.relative_to(pattern).parts)]
    elif glob.has_magic(str(pattern)):
        paths = [Path(name) for name in glob.glob(str(pattern), recursive=True) if os.path.isfile(name)]
    else:
        raise ImageError(f"{pattern} does not exist. Check its name and folder.")
    if without is not None and _lies_below(without, pattern):
        paths = [path for path in paths if Path(os.path.realpath(without)) not in Path(os.path.realpath(path)).parents]
    pictures = sorted(path for path in paths if path.suffix.lower() in READ_SUFFIXES)
    if not pictures:
        raise ImageError(f"{pattern} holds no picture; at least one is needed. Check the folder or the pattern.")
    return pictures


def _lies_below(folder: StrPath, pattern: Path) -> bool:
    """Whether `folder` lies inside the folder that `pattern` searches and is not this folder itself."""
    fixed = itertools.takewhile(lambda part: not glob.has_magic(part), pattern.parts)
    return Path(os.path.realpath(Path(*fixed))) in Path(os.path.realpath(folder)).parents
