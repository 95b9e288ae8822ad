"""What an evaluation compares: models, folders of finished pictures, and two rows that show what the numbers are worth.

Pictures are (1, 3, H, W) RGB in [0, 1].
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from torch import Tensor

from ..errors import ImageError
from ..inference.stages import Attention
from ..inference.stylize import stylize
from ..io.image_files import find_images
from ..io.images import load_image
from ..models.model import StyleTransferModel
from ..ops.resize import resize_image

SEPARATOR = "__"
MOST_PAIRS = 1_000_000

Kind = Literal["model", "pictures", "reference"]


class Pair(NamedTuple):
    """A content and a style, as files."""

    content: Path
    style: Path

    @property
    def name(self) -> str:
        """CONTENT__STYLE, as finished pictures are called."""
        return f"{self.content.stem}{SEPARATOR}{self.style.stem}"


class Sources(NamedTuple):
    """The pictures of a pair, reduced to the size of the evaluation."""

    content: Tensor
    style: Tensor


class Output(NamedTuple):
    """A finished picture of the content's size.

    seconds: what it took; None where it was not made here. resized: whether it had another size.
    """

    picture: Tensor
    seconds: float | None = None
    resized: bool = False


class Method(Protocol):
    """One row of the table."""

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> Kind: ...

    def identity(self, pair: Pair) -> str:
        """Changes with whatever changes the picture, besides the sources."""

    def make(self, pair: Pair, sources: Sources) -> Output:
        """Raises an ImageError where there is no picture to be had."""


@dataclass(frozen=True)
class IdentityBaseline:
    """The best that a content metric can say, and what a style metric says when nothing was done."""

    name: str = "content unchanged"
    kind: Kind = "reference"

    def identity(self, pair: Pair) -> str:
        return self.name

    def make(self, pair: Pair, sources: Sources) -> Output:
        return Output(sources.content)


@dataclass(frozen=True)
class StyleCopyBaseline:
    """The style picture itself, its middle cut to the content's shape: all style, no content."""

    name: str = "style copied"
    kind: Kind = "reference"

    def identity(self, pair: Pair) -> str:
        return self.name

    def make(self, pair: Pair, sources: Sources) -> Output:
        height, width = sources.content.shape[-2:]
        rows, columns = sources.style.shape[-2:]
        scale = max(height / rows, width / columns)
        size = max(height, round(rows * scale)), max(width, round(columns * scale))
        top, left = (size[0] - height) // 2, (size[1] - width) // 2
        return Output(resize_image(sources.style, size=size)[..., top : top + height, left : left + width])


@dataclass(frozen=True)
class ModelMethod:
    """A model, with the settings it paints with.

    Args:
        source: name or file it was loaded from.
        digest: of that file.
        attention, temperature, strength: see `stylize`.
    """

    name: str
    model: StyleTransferModel
    source: str
    digest: str
    attention: Attention = "exact"
    temperature: float = 1.0
    strength: float = 1.0
    kind: Kind = "model"

    def identity(self, pair: Pair) -> str:
        dtype = self.model.precision
        return f"{self.digest} {dtype} {self.attention} {self.temperature} {self.strength}"

    def make(self, pair: Pair, sources: Sources) -> Output:
        started = time.perf_counter()
        picture = stylize(
            self.model,
            sources.content,
            sources.style,
            attention=self.attention,
            temperature=self.temperature,
            strength=self.strength,
        )
        return Output(picture, time.perf_counter() - started)


@dataclass(frozen=True)
class ExistingImages:
    """Pictures that another program made.

    Args:
        source: their folder.
        files: pair name -> file.
    """

    name: str
    source: str
    files: Mapping[str, Path]
    kind: Kind = "pictures"

    def identity(self, pair: Pair) -> str:
        return file_identity(self.files[pair.name])

    def make(self, pair: Pair, sources: Sources) -> Output:
        picture, size = load_image(self.files[pair.name]), sources.content.shape[-2:]
        return Output(resize_image(picture, size=(size[0], size[1])), resized=picture.shape[-2:] != size)


def finished_in(name: str, folder: str | Path) -> ExistingImages:
    """The pictures of a folder called CONTENT__STYLE.*, as a subject."""
    return ExistingImages(name, str(folder), by_stem(find_images([folder])))


def file_identity(path: Path) -> str:
    """Changes when another file takes a file's place, or the file goes."""
    try:
        status = path.stat()
    except OSError:  # a dangling link, or a file that went while others were judged
        return f"{path.name} cannot be found"
    return f"{path.name} {status.st_size} {status.st_mtime_ns}"


def by_stem(paths: Sequence[Path]) -> dict[str, Path]:
    """Name without suffix -> file.

    Raises:
        ImageError: two files of one name, so that nobody could tell which one is meant.
    """
    found: dict[str, Path] = {}
    for path in paths:
        if path.stem in found:
            raise ImageError(f"{found[path.stem]} and {path} have one name; pictures are told apart by it. Rename one.")
        found[path.stem] = path
    return found


def choose_pairs(
    contents: Sequence[Path], styles: Sequence[Path], folders: Sequence[ExistingImages], count: int | None, seed: int
) -> list[Pair]:
    """Pairs that every subject is judged on: those present in every folder, or else each content with each style.

    Args:
        contents, styles: pictures, told apart by their names.
        folders: of finished pictures.
        count: that many of the pairs at most, drawn with `seed`; None for all of them.

    Returns:
        at least one pair; those of one content follow each other.

    Raises:
        ImageError: no pair is left, or too many are, or names repeat; the text says where.
    """
    by_content, by_style = by_stem(contents), by_stem(styles)
    pairs = _common_pairs(folders, by_content, by_style) if folders else _Product(by_content, by_style)
    chosen: Sequence[int] = range(len(pairs))
    if count is not None and count < len(pairs):
        chosen = sorted(random.Random(seed).sample(chosen, count))
    if len(chosen) > MOST_PAIRS:
        raise ImageError(f"{len(chosen)} pairs came; at most {MOST_PAIRS} are judged. Draw some of them with --pairs.")
    return [pairs[index] for index in chosen]


class _Product(Sequence[Pair]):
    """Each content with each style, made when asked for: a thousand of each are a million pairs."""

    def __init__(self, contents: Mapping[str, Path], styles: Mapping[str, Path]) -> None:
        self.contents, self.styles = list(contents.values()), list(styles.values())

    def __len__(self) -> int:
        return len(self.contents) * len(self.styles)

    def __getitem__(self, index: int) -> Pair:  # type: ignore[override]  # no slices are taken
        content, style = divmod(index, len(self.styles))
        return Pair(self.contents[content], self.styles[style])


def _common_pairs(
    folders: Sequence[ExistingImages], contents: Mapping[str, Path], styles: Mapping[str, Path]
) -> Sequence[Pair]:
    names: set[str] | None = None
    for folder in folders:
        fitting = {pair.name for pair in named_pairs(folder.files, contents, styles)}
        names = fitting if names is None else names & fitting
        if not names:
            raise ImageError(
                f"no pair is left with the {len(folder.files)} pictures of {folder.name}, such as "
                f"{next(iter(folder.files))}: names like {next(iter(contents))}{SEPARATOR}{next(iter(styles))} are "
                "needed, of pairs that the other folders have too. Check names and folders."
            )
    return named_pairs(names or (), contents, styles)


def named_pairs(names: Iterable[str], contents: Mapping[str, Path], styles: Mapping[str, Path]) -> list[Pair]:
    """Pairs that names of the form CONTENT__STYLE speak of, in the order of contents and styles; others are skipped.

    >>> named_pairs(["a__b__c"], {"a": Path("a.png"), "a__b": Path("a__b.png")}, {"c": Path("c.png")})[0].content.stem
    'a__b'
    """
    places = {path: place for paths in (contents, styles) for place, path in enumerate(paths.values())}
    found = []
    for name in names:
        parts = name.split(SEPARATOR)
        splits = [(SEPARATOR.join(parts[:i]), SEPARATOR.join(parts[i:])) for i in range(1, len(parts))]
        found += [Pair(contents[c], styles[s]) for c, s in splits if c in contents and s in styles][:1]
    return sorted(found, key=lambda pair: (places[pair.content], places[pair.style]))
