"""The methods that an evaluation compares: models, ablations, folders of existing images, and two baselines.

Pictures are (1, 3, H, W) RGB in [0, 1].
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from ..errors import ImageError
from ..inference.stages import Attention
from ..inference.stylize import stylize
from ..io.image_files import find_images
from ..io.images import load_over_white
from ..models.attention import AdaAttention
from ..models.model import StyleTransferModel
from ..ops.resize import resize_image

SEPARATOR = "__"
MAX_PAIRS = 1_000_000

Kind = Literal["model", "pictures", "reference"]


class Pair(NamedTuple):
    """The files of a content and a style."""

    content: Path
    style: Path

    @property
    def name(self) -> str:
        """CONTENT__STYLE, the file name of an existing image without its suffix."""
        return f"{self.content.stem}{SEPARATOR}{self.style.stem}"


class Sources(NamedTuple):
    """The pictures of a pair, reduced to the size of the evaluation; see `load_reduced`."""

    content: Tensor
    style: Tensor


class Output(NamedTuple):
    """A stylised picture of the content's size.

    seconds: time of the stylisation; None where the picture was not computed. resized: whether it had another size.
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
        """Text that changes whenever the method's output for these sources would."""

    def stylize(self, pair: Pair, sources: Sources) -> Output:
        """The method's picture of a pair. Raises an ImageError where it cannot be read."""


@dataclass(frozen=True)
class IdentityBaseline:
    """The content picture itself: the best value of every content metric, and no style."""

    name: str = "content unchanged"
    kind: Kind = "reference"

    def identity(self, pair: Pair) -> str:
        return self.name

    def stylize(self, pair: Pair, sources: Sources) -> Output:
        return Output(sources.content)


@dataclass(frozen=True)
class StyleCopyBaseline:
    """The style picture itself, scaled and cropped around its centre to the content's size: no content."""

    name: str = "style copied"
    kind: Kind = "reference"

    def identity(self, pair: Pair) -> str:
        return self.name

    def stylize(self, pair: Pair, sources: Sources) -> Output:
        height, width = sources.content.shape[-2:]
        rows, columns = sources.style.shape[-2:]
        scale = max(height / rows, width / columns)
        size = max(height, round(rows * scale)), max(width, round(columns * scale))
        top, left = (size[0] - height) // 2, (size[1] - width) // 2
        return Output(resize_image(sources.style, size=size)[..., top : top + height, left : left + width])


@dataclass(frozen=True)
class ModelMethod:
    """A model with its inference options.

    Args:
        source: name or file that the model was loaded from.
        digest: digest of that file.
        attention, temperature, strength, refine_dtype: see `inference.stylize.stylize`. refine: its `refine_steps`.
    """

    name: str
    model: StyleTransferModel
    source: str
    digest: str
    attention: Attention = "exact"
    temperature: float = 1.0
    strength: float = 1.0
    refine: int = 0
    refine_dtype: torch.dtype | None = None
    kind: Kind = "model"

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of `stylize`."""
        return {
            "attention": self.attention,
            "temperature": self.temperature,
            "strength": self.strength,
            "refine_steps": self.refine,
            "refine_dtype": self.refine_dtype,
        }

    def identity(self, pair: Pair) -> str:
        dtype = self.model.precision
        refined = f" refine {self.refine}" if self.refine else ""
        if self.refine and self.refine_dtype is not None:
            refined += f" {self.refine_dtype}"
        return f"{self.digest} {dtype} {self.attention} {self.temperature} {self.strength}{refined}"

    def stylize(self, pair: Pair, sources: Sources) -> Output:
        started = time.perf_counter()
        picture = stylize(
            self.model,
            sources.content,
            sources.style,
            **self.options,
        )
        return Output(picture, time.perf_counter() - started)


@dataclass(frozen=True)
class ExistingImages:
    """Pictures that another program has made.

    Args:
        source: folder of the pictures.
        files: pair name -> file.
    """

    name: str
    source: str
    files: Mapping[str, Path]
    kind: Kind = "pictures"

    def identity(self, pair: Pair) -> str:
        return file_identity(self.files[pair.name])

    def stylize(self, pair: Pair, sources: Sources) -> Output:
        picture, size = load_over_white(self.files[pair.name]), sources.content.shape[-2:]
        return Output(resize_image(picture, size=(size[0], size[1])), resized=picture.shape[-2:] != size)


def existing_images(name: str, folder: str | Path) -> ExistingImages:
    """The pictures of a folder, called CONTENT__STYLE.*, as a method."""
    return ExistingImages(name, str(folder), by_stem(find_images([folder])))


def attending_at(model: StyleTransferModel, levels: Sequence[str]) -> StyleTransferModel:
    """A copy of the model that attends at these levels alone: an ablation that needs no training.

    At the other levels every query is 0, so all style positions have equal weight: the mean and standard deviation are
    AdaIN's, the same at every content position. Without any level the copy is AdaIN with this model's encoder and
    decoder.

    Raises:
        ValueError: the model has no attention at one of the levels.
    """
    unknown = [level for level in levels if level not in model.config.levels]
    if unknown:
        raise ValueError(f"levels has {unknown[0]!r}; this model attends at {', '.join(model.config.levels)} (or none)")
    copy = deepcopy(model)
    with torch.no_grad():
        for level in copy.config.levels:
            attention = copy.fusion.attention[level]
            assert isinstance(attention, AdaAttention) and attention.query_proj.bias is not None
            if level not in levels:
                attention.query_proj.weight.zero_()
                attention.query_proj.bias.zero_()
    return copy


def load_reduced(path: Path, size: int) -> Tensor:
    """A picture, reduced to a short side of `size` pixels where it is longer; size 0 keeps it."""
    picture = load_over_white(path)
    return resize_image(picture, short_side=size) if 0 < size < min(picture.shape[-2:]) else picture


def file_identity(path: Path) -> str:
    """Text that changes when the file is replaced or removed."""
    try:
        status = path.stat()
    except OSError:  # a dangling link, or a file removed during the evaluation
        return f"{path.name} cannot be found"
    return f"{path.name} {status.st_size} {status.st_mtime_ns}"


def by_stem(paths: Sequence[Path]) -> dict[str, Path]:
    """Name without suffix -> file.

    Raises:
        ImageError: two files have the same name, so pair names would be ambiguous.
    """
    files: dict[str, Path] = {}
    for path in paths:
        if path.stem in files:
            raise ImageError(
                f"{files[path.stem]} and {path} have the same name; pair names need different ones. Rename one."
            )
        files[path.stem] = path
    return files


def choose_pairs(
    contents: Sequence[Path], styles: Sequence[Path], folders: Sequence[ExistingImages], count: int | None, seed: int
) -> list[Pair]:
    """The pairs that every method is measured on: those present in every folder, or else each content with each style.

    Args:
        contents, styles: files with different names.
        folders: methods that need an existing image of each pair.
        count: maximal number of pairs, a random sample drawn with `seed`; None takes all of them.

    Returns:
        at least one pair; the pairs of one content are adjacent.

    Raises:
        ImageError: no pair is left, there are too many pairs, or two files have the same name.
    """
    by_content, by_style = by_stem(contents), by_stem(styles)
    pairs = _common_pairs(folders, by_content, by_style) if folders else _Product(by_content, by_style)
    chosen: Sequence[int] = range(len(pairs))
    if count is not None and count < len(pairs):
        chosen = sorted(random.Random(seed).sample(chosen, count))
    if len(chosen) > MAX_PAIRS:
        raise ImageError(f"{len(chosen)} pairs came; at most {MAX_PAIRS} are allowed. Draw some of them with --pairs.")
    return [pairs[index] for index in chosen]


class _Product(Sequence[Pair]):
    """Each content with each style, created on access: a thousand of each are a million pairs."""

    def __init__(self, contents: Mapping[str, Path], styles: Mapping[str, Path]) -> None:
        self.contents, self.styles = list(contents.values()), list(styles.values())

    def __len__(self) -> int:
        return len(self.contents) * len(self.styles)

    def __getitem__(self, index: int) -> Pair:  # type: ignore[override]  # slices are not supported
        content, style = divmod(index, len(self.styles))
        return Pair(self.contents[content], self.styles[style])


def _common_pairs(
    folders: Sequence[ExistingImages], contents: Mapping[str, Path], styles: Mapping[str, Path]
) -> Sequence[Pair]:
    names: set[str] | None = None
    for folder in folders:
        available = {pair.name for pair in named_pairs(folder.files, contents, styles)}
        names = available if names is None else names & available
        if not names:
            raise ImageError(
                f"no pair is left with the {len(folder.files)} pictures of {folder.name}, such as "
                f"{next(iter(folder.files))}: names like {next(iter(contents))}{SEPARATOR}{next(iter(styles))} are "
                "needed, of pairs that the other folders have too. Check names and folders."
            )
    return named_pairs(names or (), contents, styles)


def named_pairs(names: Iterable[str], contents: Mapping[str, Path], styles: Mapping[str, Path]) -> list[Pair]:
    """The pairs whose names CONTENT__STYLE are given, in the order of contents and styles; other names are skipped.

    >>> named_pairs(["a__b__c"], {"a": Path("a.png"), "a__b": Path("a__b.png")}, {"c": Path("c.png")})[0].content.stem
    'a__b'
    """
    order = {path: index for paths in (contents, styles) for index, path in enumerate(paths.values())}
    pairs = []
    for name in names:
        parts = name.split(SEPARATOR)
        splits = [(SEPARATOR.join(parts[:i]), SEPARATOR.join(parts[i:])) for i in range(1, len(parts))]
        pairs += [Pair(contents[c], styles[s]) for c, s in splits if c in contents and s in styles][:1]
    return sorted(pairs, key=lambda pair: (order[pair.content], order[pair.style]))
