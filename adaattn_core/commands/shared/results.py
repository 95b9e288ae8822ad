"""Where the results of several pictures go, which of them are done, and which pictures are results."""

from __future__ import annotations

import logging
import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ...errors import ImageError, OutputError
from ...io.files import is_stream
from ...io.formats import WRITE_FORMATS
from ...io.image_files import FoundImage, content_digest, is_whole, source_digest
from .paths import check_output

logger = logging.getLogger(__name__)


class Result(NamedTuple):
    """A result to paint: its content, its file, and the file where another run would have put it (`result_places`)."""

    content: Path
    output: Path
    other: Path

    def is_done(self) -> bool:
        """Whether an earlier run has painted it; an empty, damaged or other content's file does not count."""
        if is_whole(self.output):
            return content_digest(self.output) in (None, source_digest(self.content))
        return is_whole(self.other) and content_digest(self.other) == source_digest(self.content)


def without_results(images: list[FoundImage], output: str) -> list[FoundImage]:
    """The pictures without the results of earlier runs that a search of the output folder itself has found.

    Raises:
        ImageError: nothing is left.
    """
    folder = Path(os.path.realpath(output))
    rest = [
        image for image in images
        if image.root is None or folder not in Path(os.path.realpath(image.path)).parents
        or content_digest(image.path) is None
    ]  # fmt: skip
    count = len(images) - len(rest)
    if images and not rest:
        raise ImageError(f"{output} holds only results of earlier runs. Name another output folder to paint them.")
    if count:
        noun = "1 picture is a result" if count == 1 else f"{count} pictures are results"
        logger.warning("%s of an earlier run into %s and left out of the inputs.", noun, output)
    return rest


def place_results(
    contents: Sequence[FoundImage], styles: Sequence[FoundImage], output: str, one_by_one: bool
) -> list[list[Result]]:
    """The results of each style: `output` itself, or files in this folder, no two the same.

    Args:
        contents: not empty.
        styles: not empty, if they are used one by one; a result for each content and style is CONTENT__STYLE.png.
        output: the value of -o.
        one_by_one: the styles are not mixed.

    Raises:
        ImageError, OutputError: the output cannot be written.
    """
    mixes = [(place, other) for place, other in _places(styles)] if one_by_one else [(Path(), Path())]
    found = [(image.path, *pair) for image, pair in zip(contents, _places(contents), strict=True)]
    is_folder = any(image.root is not None for image in (*contents, *(styles if one_by_one else ())))
    if len(found) * len(mixes) == 1 and _is_file_name(output, is_folder):
        check_output(output)
        return [[Result(found[0][0], Path(output), Path(output))]]
    if not Path(output).is_dir() and Path(output).suffix.lower() in WRITE_FORMATS or is_stream(output):
        count = len(found) * len(mixes)
        raise OutputError(f"{output} is not a folder; a folder is needed for {count} results. Name a folder.")
    results = [
        [Result(path, *(Path(output, _joined(one, two)) for one, two in ((place, style), (other, other_style))))
         for path, place, other in found]
        for style, other_style in mixes
    ]  # fmt: skip
    _check_distinct([result for mix in results for result in mix])
    return results


def _is_file_name(output: str, from_folder: bool) -> bool:
    """Whether a single result is written to `output` itself; the result of a folder goes to a folder."""
    if is_stream(output):
        return True
    is_folder = os.path.isdir(output) or output.endswith(("/", os.sep))
    return not is_folder and not (from_folder and Path(output).suffix.lower() not in WRITE_FORMATS)


def _joined(content: Path, style: Path) -> str:
    """The file of a content and a style in the output folder; the style is `Path()` in a mix."""
    name = f"{content.name}__{style.name}.png" if style.name else f"{content.name}.png"
    return str(content.parent / style.parent / name)


def _check_distinct(results: Sequence[Result]) -> None:
    taken: dict[str, Result] = {}
    for result in results:
        other = taken.setdefault(_key(result.output), result)
        if other is not result:
            names = f"The results of {other.content} and {result.content} would both be"
            raise OutputError(f"{names} {result.output}. Rename one of the pictures.")


def _places(images: Sequence[FoundImage]) -> list[tuple[Path, Path]]:
    """`result_places`, and the places where the pictures were if their suffix was left out or kept instead."""
    places = result_places(images)
    others = [place.parent / (image.path.name if place.name == image.path.stem else image.path.stem)
              for image, place in zip(images, places, strict=True)]  # fmt: skip
    return list(zip(places, others, strict=True))


def result_places(images: Sequence[FoundImage]) -> list[Path]:
    """The place of each picture's result in the output folder, without its suffix.

    It is the place of the picture in the folder that was searched, so that other pictures do not change it; if several
    folders were searched, the name of the folder comes first. Pictures whose places differ in nothing but the suffix
    keep it. Pictures that were named one by one and have the same name are told apart by their folders.

    >>> def found(*places): return [FoundImage(Path("p", place), Path(place), Path("p")) for place in places]
    >>> [place.as_posix() for place in result_places(found("a/sea.png", "b/sea.png", "hill.png", "hill.jpg"))]
    ['a/sea', 'b/sea', 'hill.png', 'hill.jpg']
    """
    roots = _distinct_names({image.root for image in images if image.root is not None})
    below = [Path(roots[image.root], image.place) if image.root is not None else image.place for image in images]
    stems = [place.parent / place.stem for place in below]
    twins = _repeated([f"{image.path.parent / image.path.stem}" for image in images])
    places = [full if twin else stem for stem, full, twin in zip(stems, below, twins, strict=True)]
    repeated = _repeated(map(str, places))
    parents = _distinct_names({image.path.parent for image, twice in zip(images, repeated, strict=True) if twice})
    return [Path(parents[image.path.parent], place) if twice else place
            for image, place, twice in zip(images, places, repeated, strict=True)]  # fmt: skip


def _repeated(names: Iterable[str]) -> list[bool]:
    """For each name whether it occurs more than once."""
    keys = [_key(name) for name in names]
    counts = Counter(keys)
    return [counts[key] > 1 for key in keys]


def _key(name: str | Path) -> str:
    """Equal for the names of one file: Windows and macOS ignore case."""
    return str(name).casefold() if sys.platform in ("win32", "darwin") else str(name)


def _distinct_names(folders: Iterable[Path]) -> dict[Path, str]:
    """The shortest last parts of the paths of folders that tell them apart; nothing for a single folder."""
    parts = {folder: Path(os.path.abspath(folder)).parts[1:] for folder in folders}
    names = dict.fromkeys(parts, "")
    for count in range(1, 1 + max(map(len, parts.values()), default=0)):
        if len(set(names.values())) == len(names):
            break
        names = {folder: os.path.join("", *part[-count:]) for folder, part in parts.items()}
    return names
