"""Sources of training pictures: folders, lists, and tar files, whose members are read without unpacking."""

from __future__ import annotations

import glob
import logging
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from io import BytesIO
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ..errors import DataError, ImageError
from .formats import is_picture_name, remark_skipped
from .image_files import find_files, find_images, split_glob

log = logging.getLogger(__name__)

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


class Member(NamedTuple):
    """A picture in a tar file: the file, the picture's name in it, and the position and number of its bytes."""

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


def open_picture(picture: Picture) -> Path | BytesIO:
    """The picture as a path or a buffer that Pillow can open.

    The tar file is opened for each member, so that processes do not share a file position.
    """
    if isinstance(picture, Path):
        return picture
    with picture.shard.open("rb") as file:
        file.seek(picture.offset)
        return BytesIO(file.read(picture.size))


def list_pictures(source: str | Path) -> list[Picture]:
    """The pictures of a data set, always in the same order.

    Args:
        source: one of
            * a folder, which is searched recursively, or a picture (`find_images`);
            * tar files: `photos.tar`, `photos-*.tar`, `photos-{000..009}.tar`, or a folder of tar files only;
            * a list `*.txt` with the path of a picture or tar file on each line, relative to the folder of the list. A
              picture that is listed twice is drawn twice as often; a missing one counts as an unreadable picture.

    Raises:
        ImageError: the source does not exist, or holds no picture.
        DataError: the list is empty or not text; a tar file is missing, compressed or not a tar file.
    """
    path, name = Path(source), str(source).lower()
    if name.endswith(COMPRESSED):
        raise DataError(
            f"{source} is compressed, and pictures in it cannot be read one by one. "
            "Unpack it to a plain .tar, which is hardly larger."
        )
    if name.endswith(".tar"):
        return _pictures_in_shards(source, shard_paths(str(source)))
    if name.endswith(".txt") and path.is_file():
        return _pictures_in_list(path)
    try:
        return list(find_images([source]))
    except ImageError:
        shards = _find_shards(path, ("**", "*.tar")) if path.is_dir() else []
        if not shards:
            raise
        return _pictures_in_shards(source, shards)


def _pictures_in_list(file: Path) -> list[Picture]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is no text in UTF-8; a list has the path of a picture on each line.") from error
    paths = [file.parent / line.strip() for line in lines if line.strip()]
    if not paths:
        raise DataError(f"{file} is empty; a list has the path of a picture on each line.")
    pictures: list[Picture] = []
    for path in paths:
        pictures += members(path) if path.suffix.lower() == ".tar" else [path]
    return pictures


def shard_paths(pattern: str) -> list[Path]:
    """The tar files of a name, a glob pattern or a name with a range of numbers, in order.

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
        return _find_shards(*split_glob(Path(pattern)))
    return [Path(pattern)]


def _find_shards(root: Path, parts: Sequence[str]) -> list[Path]:
    files, unreadable = find_files(root, parts)
    if unreadable:
        raise DataError(unreadable[0])
    return sorted(files)


def _pictures_in_shards(source: str | Path, shards: Sequence[Path]) -> list[Picture]:
    pictures: list[Picture] = [member for shard in shards for member in members(shard)]
    if not pictures:
        raise ImageError(f"{source} holds no picture; at least one is needed. Check the tar files or their names.")
    return pictures


def members(shard: Path) -> list[Member]:
    """The pictures of a tar file, recognised by their names; only the headers are read.

    Of a damaged file, the pictures before the damage are returned, with a warning.

    Raises:
        DataError: the file does not exist, or is no uncompressed tar file.
    """
    pictures: list[Member] = []
    skipped: Counter[str] = Counter()
    try:
        with tarfile.open(shard, "r:") as archive:
            for info in _headers(archive):
                path = PurePosixPath(info.name)
                hidden = any(part.startswith(".") for part in path.parts)
                if not info.isreg() or hidden:
                    continue
                if is_picture_name(path) and not info.issparse():
                    pictures.append(Member(shard, str(path), info.offset_data, info.size))
                else:
                    skipped[path.suffix.lower()] += 1
    except FileNotFoundError as error:
        raise DataError(f"{shard} is missing. Check the name, or the range of numbers in it.") from error
    except tarfile.TarError as error:
        if not pictures:
            raise DataError(f"{shard} is no tar file, or compressed ({error}). Make it anew with tar -cf.") from error
        log.warning("%s is damaged (%s); only the %d picture(s) before that are used", shard, error, len(pictures))
    if pictures:
        remark_skipped(str(shard), skipped)
    return pictures


def _headers(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """All members of an archive.

    Differs from the archive's own iterator: members are not kept in memory (a million take a GiB), and a missing block
    of zeros at the end of the file is a TarError.
    """
    while (info := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined]  # a public attribute without a type
        yield info
    assert archive.fileobj is not None
    archive.fileobj.seek(archive.offset)
    end = archive.fileobj.read(tarfile.BLOCKSIZE)
    if not end or any(end):
        raise tarfile.ReadError("bad header" if end else "unexpected end of data")


def frame_pairs(pictures: Sequence[Picture], gap: int) -> list[tuple[Picture, Picture]]:
    """All pairs of pictures of one folder that are at most `gap` apart in the order of their names.

    Numbers in names are ordered by their value.

    >>> pairs = frame_pairs([Path("a/9.png"), Path("a/10.png"), Path("b/1.png")], 1)
    >>> [(first.name, second.name) for first, second in pairs]
    [('9.png', '10.png')]
    """
    clips = groupby(sorted(pictures, key=_sort_key), key=lambda picture: picture.parent)
    pairs = []
    for frames in (list(frames) for _, frames in clips):
        pairs += [pair for step in range(1, gap + 1) for pair in zip(frames, frames[step:], strict=False)]
    return pairs


def _sort_key(picture: Picture) -> tuple[str, list[tuple[int, str]]]:
    words = re.findall(r"(\D*)(\d*)", picture.name)
    return str(picture.parent), [(int(number or 0), text) for text, number in words]
