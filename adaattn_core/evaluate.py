"""Evaluation: several subjects judged on the same pairs of content and style, picture by picture.

A subject is a model, a folder of finished pictures, or one of the two rows that show what the numbers are worth:
"content unchanged" and "style copied". Nothing but the current pair's pictures is in memory, and what is measured is
appended to a file at once, so that an evaluation that was stopped goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from .images import ImageError, atomic_path, find_images, load_image, resize_image
from .model import StyleTransferModel
from .painting import Attention
from .panel import Look, Panel, StyleMarks
from .progress import Progress
from .stylize import stylize

SEPARATOR = "__"
KEPT_STYLES = 200
"""Styles whose marks stay in memory: about 2 MB each."""


class Pair(NamedTuple):
    """A content and a style, as files."""

    content: Path
    style: Path

    @property
    def name(self) -> str:
        """CONTENT__STYLE, as finished pictures are called."""
        return f"{self.content.stem}{SEPARATOR}{self.style.stem}"


class Sources(NamedTuple):
    """The pictures of a pair, (1, 3, H, W) in [0, 1], reduced to the size of the evaluation."""

    content: Tensor
    style: Tensor


class Made(NamedTuple):
    """A finished picture of the content's size; the seconds it took, None where it was not made here."""

    picture: Tensor
    seconds: float | None = None
    resized: bool = False


class Subject(Protocol):
    """What is judged: one row of the table."""

    @property
    def name(self) -> str: ...

    def identity(self, pair: Pair) -> str:
        """Changes with whatever changes the picture, besides the sources."""

    def make(self, pair: Pair, sources: Sources) -> Made: ...


@dataclass(frozen=True)
class ContentUnchanged:
    """The best that any content metric can say, and the worst of a style metric."""

    name: str = "content unchanged"

    def identity(self, pair: Pair) -> str:
        return self.name

    def make(self, pair: Pair, sources: Sources) -> Made:
        return Made(sources.content)


@dataclass(frozen=True)
class StyleCopied:
    """The style picture itself, its middle cut to the content's shape: the best of a style metric, with no content."""

    name: str = "style copied"

    def identity(self, pair: Pair) -> str:
        return self.name

    def make(self, pair: Pair, sources: Sources) -> Made:
        height, width = sources.content.shape[-2:]
        rows, columns = sources.style.shape[-2:]
        scale = max(height / rows, width / columns)
        size = max(height, round(rows * scale)), max(width, round(columns * scale))
        style = resize_image(sources.style, size=size)
        top, left = (size[0] - height) // 2, (size[1] - width) // 2
        return Made(style[..., top : top + height, left : left + width])


@dataclass(frozen=True)
class Painter:
    """A model.

    Args:
        model: from `load_model`.
        digest: of its file.
        attention, temperature, strength: see `stylize`.
    """

    name: str
    model: StyleTransferModel
    digest: str
    attention: Attention = "exact"
    temperature: float = 1.0
    strength: float = 1.0

    def identity(self, pair: Pair) -> str:
        dtype = next(self.model.parameters()).dtype
        return f"{self.digest} {dtype} {self.attention} {self.temperature} {self.strength}"

    def make(self, pair: Pair, sources: Sources) -> Made:
        started = time.perf_counter()
        picture = stylize(
            self.model, sources.content, sources.style,
            attention=self.attention, temperature=self.temperature, strength=self.strength,
        )  # fmt: skip
        return Made(picture, time.perf_counter() - started)


@dataclass(frozen=True)
class Finished:
    """A folder of pictures that another program made, called CONTENT__STYLE.*."""

    name: str
    files: Mapping[str, Path]
    """Pair name -> file."""

    def identity(self, pair: Pair) -> str:
        return file_identity(self.files[pair.name])

    def make(self, pair: Pair, sources: Sources) -> Made:
        picture, size = load_image(self.files[pair.name]), sources.content.shape[-2:]
        return Made(resize_image(picture, size=(size[0], size[1])), resized=picture.shape[-2:] != size)


def finished_in(name: str, folder: Path) -> Finished:
    return Finished(name, by_stem(find_images([folder])))


def by_stem(paths: Sequence[Path]) -> dict[str, Path]:
    """Name without suffix -> file.

    Raises:
        ImageError: two files of one name: nobody could tell which is meant.
    """
    found: dict[str, Path] = {}
    for path in paths:
        if path.stem in found:
            raise ImageError(f"{found[path.stem]} and {path} have one name; pictures are told apart by it. Rename one.")
        found[path.stem] = path
    return found


def file_identity(path: Path) -> str:
    status = path.stat()
    return f"{path.name} {status.st_size} {status.st_mtime_ns}"


# Pairs


def choose_pairs(
    contents: Sequence[Path], styles: Sequence[Path], folders: Sequence[Finished], count: int | None, seed: int
) -> list[Pair]:
    """Pairs that every subject is judged on: those present in every folder, or else each content with each style.

    Args:
        contents, styles: pictures.
        folders: of finished pictures.
        count: that many of the pairs at most, drawn with `seed`; None for all of them.

    Raises:
        ImageError: no pair is left; the text says where they were lost.
    """
    pairs = [Pair(c, s) for c in by_stem(contents).values() for s in by_stem(styles).values()]
    for folder in folders:
        kept = [pair for pair in pairs if pair.name in folder.files]
        if not kept:
            example = next(iter(folder.files.values()))
            raise ImageError(
                f"no picture of {folder.name} fits: {example.name} is no CONTENT{SEPARATOR}STYLE of the given folders "
                f"that the others have too, as {pairs[0].name}.png is. Rename the pictures or check the folders."
            )
        pairs = kept
    if count is not None and count < len(pairs):
        drawn = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed))[:count]
        pairs = [pairs[index] for index in sorted(drawn.tolist())]
    return pairs


# Records


@dataclass
class Records:
    """What has been measured, by key, in memory and as lines of a file."""

    path: Path
    found: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path, fresh: bool = False) -> Records:
        """Records of earlier runs; a line that was cut short by a kill is dropped. `fresh` forgets all of them."""
        records = cls(path)
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() and not fresh else []
        for line in lines:
            try:
                record = json.loads(line)
                records.found[record["key"]] = record
            except (ValueError, KeyError, TypeError):
                continue
        with atomic_path(path) as temporary:
            temporary.write_text("".join(json.dumps(x) + "\n" for x in records.found.values()), encoding="utf-8")
        return records

    def add(self, record: dict[str, Any]) -> None:
        self.found[record["key"]] = record
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


# The work


@dataclass
class Evaluation:
    """Subjects, judges and pairs, and what came of them.

    Args:
        size: contents and styles with a longer short side are reduced to this one; 0 keeps them.
        see: called with each picture that is made, for those who want to keep some.
    """

    panel: Panel
    subjects: Sequence[Subject]
    pairs: Sequence[Pair]
    records: Records
    size: int = 512
    see: Callable[[Subject, Pair, Made], None] = lambda subject, pair, made: None
    broken: dict[str, str] = field(default_factory=dict)
    """File -> why it cannot be read."""

    def run(self, bar: Progress) -> None:
        """Measure what has not been measured before; a picture that cannot be read goes to `broken`."""
        styles: dict[Path, StyleMarks] = {}
        content: tuple[Path, Look] | None = None
        for pair in self.pairs:
            for subject in self.subjects:
                if self.key(subject, pair) in self.records.found:
                    bar.update()
            missing = [subject for subject in self.subjects if self.key(subject, pair) not in self.records.found]
            if not missing:
                continue
            try:
                sources = self.sources(pair)
            except ImageError as error:
                self._note(pair, error)
                bar.update(len(missing))
                continue
            if content is None or content[0] != pair.content:
                content = pair.content, self.panel.look(sources.content)
            marks = styles.get(pair.style) or self.panel.marks(self.panel.look(sources.style))
            if len(styles) < KEPT_STYLES:  # and none makes room: styles come round in turn, the oldest is the next
                styles[pair.style] = marks
            for subject in missing:
                self._judge(subject, pair, sources, content[1], marks)
                bar.update()

    def _judge(self, subject: Subject, pair: Pair, sources: Sources, content: Look, style: StyleMarks) -> None:
        try:
            made = subject.make(pair, sources)
        except ImageError as error:
            self._note(pair, error)
            return
        self.see(subject, pair, made)
        look = content if made.picture is sources.content else self.panel.look(made.picture)
        values = self.panel.compare(look, content, style)
        self.records.add({
            "key": self.key(subject, pair), "subject": subject.name, "content": pair.content.stem,
            "style": pair.style.stem, "seconds": made.seconds, "resized": made.resized, "values": values,
        })  # fmt: skip

    def sources(self, pair: Pair) -> Sources:
        return Sources(self._reduced(pair.content), self._reduced(pair.style))

    def _reduced(self, path: Path) -> Tensor:
        picture = load_image(path)
        return resize_image(picture, short_side=self.size) if 0 < self.size < min(picture.shape[-2:]) else picture

    def key(self, subject: Subject, pair: Pair) -> str:
        """Of a record: changes with whatever changes its numbers."""
        if not hasattr(self, "_panel_identity"):
            self._panel_identity = self.panel.identity()
        files = [file_identity(path) for path in pair]
        told = json.dumps([self._panel_identity, self.size, files, subject.identity(pair)])
        return hashlib.sha256(told.encode()).hexdigest()[:20]

    def _note(self, pair: Pair, error: ImageError) -> None:
        self.broken[pair.name] = str(error)

    def complete_pairs(self) -> list[Pair]:
        """Pairs that every subject has numbers for."""
        return [p for p in self.pairs if all(self.key(s, p) in self.records.found for s in self.subjects)]

    def rows(self, subject: Subject, pairs: Sequence[Pair]) -> Iterator[dict[str, Any]]:
        for pair in pairs:
            yield self.records.found[self.key(subject, pair)]
