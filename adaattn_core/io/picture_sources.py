"""Where training pictures lie: in folders, in lists, or in tar files, whose members are read where they stand."""

from __future__ import annotations

import glob
import logging
import re
import tarfile
from collections.abc import Iterator, Sequence
from io import BytesIO
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ..errors import DataError, ImageError
from .image_files import find_images
from .images import READ_SUFFIXES

log = logging.getLogger(__name__)

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


class Member(NamedTuple):
    """A picture in a tar file: where its bytes are."""

    shard: Path
    inside: str
    offset: int
    size: int

    @property
    def parent(self) -> Path:
        return Path(self.shard, self.inside).parent

    @property
    def name(self) -> str:
        return PurePosixPath(self.inside).name

    def __str__(self) -> str:
        return f"{self.shard}/{self.inside}"


Picture = Path | Member


def opened(picture: Picture) -> Path | BytesIO:
    """What Pillow can open. Every member opens its tar file anew, so that processes share no position in it."""
    if isinstance(picture, Path):
        return picture
    with picture.shard.open("rb") as file:
        file.seek(picture.offset)
        return BytesIO(file.read(picture.size))


def listed_pictures(source: str | Path) -> list[Picture]:
    """Pictures of a data set, in an order that is the same every time.

    Args:
        source: one of
            * what `find_images` takes: a folder, searched recursively, or a picture;
            * tar files: `photos.tar`, `photos-*.tar`, `photos-{000..009}.tar`, or a folder that holds these alone;
            * a list `*.txt` with the path of a picture or tar file on each line, relative to its own folder. What is
              named twice is drawn twice as often; what leads nowhere is met as an unreadable picture.

    Raises:
        ImageError: it does not exist, or holds no picture.
        DataError: the list is empty or no text; a tar file is missing, compressed or none.
    """
    file, name = Path(source), str(source).lower()
    if name.endswith(COMPRESSED):
        raise DataError(
            f"{source} is compressed, and pictures in it cannot be read one by one. "
            "Unpack it to a plain .tar, which is hardly larger."
        )
    if name.endswith(".tar"):
        return _in_shards(source, shard_paths(str(source)))
    if name.endswith(".txt") and file.is_file():
        return _in_list(file)
    try:
        return list(find_images([source]))
    except ImageError:
        shards = sorted(file.rglob("*.tar")) if file.is_dir() else []
        if not shards:
            raise
        return _in_shards(source, shards)


def _in_list(file: Path) -> list[Picture]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is no text in UTF-8; a list has the path of a picture on each line.") from error
    paths = [file.parent / line.strip() for line in lines if line.strip()]
    if not paths:
        raise DataError(f"{file} is empty; a list has the path of a picture on each line.")
    found: list[Picture] = []
    for path in paths:
        found += members(path) if path.suffix.lower() == ".tar" else [path]
    return found


def shard_paths(pattern: str) -> list[Path]:
    """Tar files that a name, a glob or a name with a range means, in order.

    >>> [path.name for path in shard_paths("p-{08..10}.tar")]
    ['p-08.tar', 'p-09.tar', 'p-10.tar']
    """
    span = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if span:
        first, last = span.groups()
        numbers = [f"{number:0{len(first)}}" for number in range(int(first), int(last) + 1)]
        names = [pattern[: span.start()] + number + pattern[span.end() :] for number in numbers]
        return [path for name in names for path in shard_paths(name)]
    if glob.has_magic(pattern) and not Path(pattern).is_file():
        return sorted(map(Path, glob.glob(pattern, recursive=True)))
    return [Path(pattern)]


def _in_shards(source: str | Path, shards: Sequence[Path]) -> list[Picture]:
    found: list[Picture] = [member for shard in shards for member in members(shard)]
    if not found:
        raise ImageError(f"{source} holds no picture; at least one is needed. Check the tar files or their names.")
    return found


def members(shard: Path) -> list[Member]:
    """Pictures of a tar file, by the names they have in it; its headers are read, not its pictures.

    Raises:
        DataError: no such file, or no plain tar file.
    """
    found: list[Member] = []
    try:
        with tarfile.open(shard, "r:") as archive:
            for info in _headers(archive):
                path = PurePosixPath(info.name)
                hidden = any(part.startswith(".") for part in path.parts)
                if info.isreg() and not info.issparse() and path.suffix.lower() in READ_SUFFIXES and not hidden:
                    found.append(Member(shard, str(path), info.offset_data, info.size))
    except FileNotFoundError as error:
        raise DataError(f"{shard} is missing. Check the name, or the range of numbers in it.") from error
    except tarfile.TarError as error:
        if not found:
            raise DataError(f"{shard} is no tar file, or compressed ({error}). Make it anew with tar -cf.") from error
        log.warning("%s is damaged (%s); only the %d picture(s) before that are used", shard, error, len(found))
    return found


def _headers(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """All members. Unlike in the archive's own iterator, those that were seen are forgotten (a million take a GiB), and
    an end without the block of zeros that tar writes there is a TarError."""
    while (info := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined]  # the attribute has no type, but is as old as the module
        yield info
    assert archive.fileobj is not None
    archive.fileobj.seek(archive.offset)
    end = archive.fileobj.read(tarfile.BLOCKSIZE)
    if not end or any(end):
        raise tarfile.ReadError("bad header" if end else "unexpected end of data")


def frame_pairs(pictures: Sequence[Picture], gap: int) -> list[tuple[Picture, Picture]]:
    """Every two pictures of a folder that are up to `gap` apart, by name; numbers in names count as numbers.

    >>> [(one.name, other.name) for one, other in frame_pairs([Path("a/9.png"), Path("a/10.png"), Path("b/1.png")], 1)]
    [('9.png', '10.png')]
    """
    clips = groupby(sorted(pictures, key=_place), key=lambda picture: picture.parent)
    pairs = []
    for frames in (list(frames) for _, frames in clips):
        pairs += [pair for step in range(1, gap + 1) for pair in zip(frames, frames[step:], strict=False)]
    return pairs


def _place(picture: Picture) -> tuple[str, list[tuple[int, str]]]:
    words = re.findall(r"(\D*)(\d*)", picture.name)
    return str(picture.parent), [(int(number or 0), text) for text, number in words]
