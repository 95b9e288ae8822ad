"""Picture files that paths, folders and glob patterns name."""

from __future__ import annotations

import fnmatch
import glob
import itertools
import os
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from ..errors import ImageError
from ..ops.layout import counted
from .files import StrPath, error_reason, is_stream
from .formats import is_picture_name, most_common, remark_skipped


class FoundImage(NamedTuple):
    """A picture file, its place in the folder that was searched, and this folder; of a named file its name and None."""

    path: Path
    place: Path
    root: Path | None


class FoundImages(NamedTuple):
    """The picture files of a search, and a line for each folder that could not be read."""

    images: list[FoundImage]
    unreadable: list[str]


def find_images(patterns: Sequence[StrPath], without: StrPath | None = None) -> list[Path]:
    """The picture files that `patterns` name, in their order and each once; arguments as in `search_images`.

    Raises:
        ImageError: a file does not exist, a folder or glob holds no picture, or a folder cannot be read.
    """
    images, unreadable = search_images(patterns, without)
    if unreadable:
        raise ImageError(unreadable[0])
    return [image.path for image in images]


def search_images(patterns: Sequence[StrPath], without: StrPath | None = None) -> FoundImages:
    """The picture files that `patterns` name, in their order and each once, and the folders that cannot be read.

    Args:
        patterns: files (of any suffix), pipes, folders (searched recursively, hidden names skipped) or glob patterns
            (`**` matches folders). Folders and globs give only files with a known picture suffix, sorted. Links to
            folders are followed; a folder that several names lead to is searched once.
        without: a folder for results. Its files, which earlier runs have left there, are skipped, unless a pattern
            searches this folder or one inside it.

    Raises:
        ImageError: a file does not exist, or a folder or glob holds no picture.
    """
    found: dict[str, FoundImage] = {}
    unreadable: list[str] = []
    for pattern in [patterns] if isinstance(patterns, str | os.PathLike) else patterns:
        path = Path(pattern)
        if os.path.isfile(pattern) or is_stream(pattern):
            images = [FoundImage(path, Path(path.name), None)]
        else:
            images = _search(path, without, unreadable)
        for image in images:
            found.setdefault(os.path.join(os.path.realpath(image.path.parent), image.path.name), image)
    return FoundImages(list(found.values()), unreadable)


def _search(pattern: Path, without: StrPath | None, unreadable: list[str]) -> list[FoundImage]:
    """The picture files in a folder or of a glob."""
    parts: Sequence[str]
    if os.path.isdir(pattern):
        root, parts = pattern, ("**", "*")
    elif glob.has_magic(str(pattern)):
        root, parts = split_glob(pattern)
    else:
        raise ImageError(f"{pattern} does not exist. Check its name and folder.")
    files, failures = find_files(root, parts)
    unreadable += failures
    if without is not None and not _is_within(root, Path(without)):
        files = [file for file in files if not _is_within(file.parent, Path(without))]
    pictures = sorted(file for file in files if is_picture_name(file))
    others = Counter(file.suffix.lower() for file in files if not is_picture_name(file))
    if pictures:
        remark_skipped(str(pattern), others)
    elif not failures:
        only = f", only {counted(others.total(), 'other file')} ({most_common(others)})" if others else ""
        raise ImageError(f"{pattern} holds no picture{only}; at least one is needed. Check the folder or the pattern.")
    return [FoundImage(file, file.relative_to(root), root) for file in pictures]


def split_glob(pattern: Path) -> tuple[Path, tuple[str, ...]]:
    """The folder that a glob pattern searches, and the parts of the pattern below it.

    >>> [str(part) for part in split_glob(Path("photos/*/a.png"))]
    ['photos', "('*', 'a.png')"]
    """
    root = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), pattern.parts))
    return root, pattern.parts[len(root.parts) :]


def _is_within(path: Path, folder: Path) -> bool:
    """Whether `path` is `folder` or lies inside it, links resolved."""
    real = Path(os.path.realpath(path))
    return Path(os.path.realpath(folder)) in (real, *real.parents)


def find_files(root: Path, parts: Sequence[str] = ("**", "*")) -> tuple[list[Path], list[str]]:
    """The files below a folder that match the parts of a glob pattern, and a line for each unreadable folder.

    Differs from glob.glob: every real folder is searched once, so that links that lead in a circle end, and a folder
    that cannot be read is reported. A folder goes by its own name rather than by that of a link, if both are found.
    """
    files: dict[Path, None] = {}
    failures: dict[str, None] = {}
    folders: list[tuple[Path, int]] = [(root, 0)]
    links: list[tuple[Path, int]] = []
    seen: set[tuple[str, int]] = set()
    while folders or links:
        folder, position = folders.pop() if folders else links.pop(0)
        if (visit := (os.path.realpath(folder), position)) in seen:
            continue
        seen.add(visit)
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            failures[f"{folder} cannot be read: {error_reason(error)}. Check its permissions."] = None
            continue
        part, is_last = parts[position], position + 1 == len(parts)
        if part == "**" and not is_last:
            folders.append((folder, position + 1))
        for entry in entries:
            path = Path(folder, entry.name)
            if not _matches(entry.name, part):
                continue
            if not os.path.isdir(path):
                if is_last:
                    files[path] = None
            elif part == "**" or not is_last:
                (links if entry.is_symlink() else folders).append((path, position if part == "**" else position + 1))
    return list(files), list(failures)


def _matches(name: str, part: str) -> bool:
    """Whether a name matches a part of a glob pattern; hidden names are matched only by patterns with their dot."""
    return fnmatch.fnmatch(name, part) and (part.startswith(".") or not name.startswith("."))


# Results of earlier runs

CONTENT_KEY = "adaattn:content"
"""Key of the text in a PNG file that holds the digest of the content it was painted from."""
_SAMPLE = 1 << 16


def source_digest(path: StrPath) -> str:
    """A digest that tells pictures apart: of the name, the size, and the first and last 64 KiB of the file."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        first = file.read(_SAMPLE)
        file.seek(max(0, size - _SAMPLE))
        last = file.read(_SAMPLE)
    return sha256(f"{os.path.basename(path)} {size} ".encode("utf-8", "surrogateescape") + first + last).hexdigest()[
        :16
    ]


def content_digest(path: StrPath) -> str | None:
    """The digest of the content that a PNG file was painted from; None if the file does not tell."""
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            digest = picture.info.get(CONTENT_KEY)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    return digest if isinstance(digest, str) else None


def is_whole(path: StrPath) -> bool:
    """Whether `path` is a picture without damage: of a PNG file the checksums are compared, others are decoded."""
    try:
        with Image.open(path) as picture:
            picture.verify() if picture.format == "PNG" else picture.load()
    except Image.DecompressionBombError:  # too large for Pillow's own limit: it could be opened
        return True
    except Exception:  # the codecs raise many kinds
        return False
    return True
