"""Evaluation: several subjects judged on the same pairs of content and style, picture by picture.

Nothing but the current pair's pictures is in memory, and what is measured is appended to a file at once, so that an
evaluation that was stopped goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import ImageError
from ..io.files import atomic_path
from ..io.images import load_image
from ..ops.resize import resize_image
from ..runtime.progress import Progress
from .methods import Method, Output, Pair, Sources, file_identity
from .metric_suite import MetricSuite, PictureFeatures, StyleStatistics

STYLE_CACHE_SIZE = 200
"""Styles whose marks stay in memory, about 1.5 MB each."""

Record = dict[str, Any]


@dataclass
class Records:
    """What has been measured, by key: in memory, and as lines of a file."""

    path: Path
    found: dict[str, Record] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path, fresh: bool = False) -> Records:
        """Records of earlier runs, but for a line that a kill cut short; `fresh` forgets all of them."""
        records = cls(path)
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() and not fresh else []
        for line in lines:
            try:
                record = json.loads(line)
                records.found[record["key"]] = record
            except (ValueError, LookupError, TypeError):
                continue
        with atomic_path(path) as temporary:
            temporary.write_text("".join(json.dumps(x) + "\n" for x in records.found.values()), encoding="utf-8")
        return records

    def add(self, record: Record) -> None:
        """`record` has its key under "key"."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        self.found[record["key"]] = record


def ignore(subject: Method, pair: Pair, made: Output) -> None:
    """Looks at no picture."""


@dataclass
class Evaluation:
    """Subjects, judges and pairs, and what came of them.

    Args:
        size: contents and styles with a longer short side are reduced to this one; 0 keeps them.
        on_result: called with each picture that is judged.
    """

    panel: MetricSuite
    subjects: Sequence[Method]
    pairs: Sequence[Pair]
    records: Records
    size: int = 512
    on_result: Callable[[Method, Pair, Output], None] = ignore
    broken: dict[str, str] = field(default_factory=dict)
    """Pair name -> why one of its pictures cannot be read."""

    def run(self, bar: Progress) -> None:
        """Measure what has not been measured before; a pair with a picture that cannot be read goes to `broken`."""
        contents: dict[Path, PictureFeatures] = {}
        styles: dict[Path, StyleStatistics] = {}
        for pair in self.pairs:
            missing = [subject for subject in self.subjects if self.record(subject, pair) is None]
            bar.update(len(self.subjects) - len(missing))
            if missing:
                try:
                    self._judge(pair, missing, contents, styles)
                except ImageError as error:
                    self.broken[pair.name] = str(error)
                bar.update(len(missing))

    def _judge(
        self,
        pair: Pair,
        subjects: Sequence[Method],
        contents: dict[Path, PictureFeatures],
        styles: dict[Path, StyleStatistics],
    ) -> None:
        sources = self.sources(pair)
        if pair.content not in contents:
            contents.clear()  # pairs of one content follow each other, and a look takes 300 MB
            contents[pair.content] = self.panel.extract(sources.content)
        content = contents[pair.content]
        marks = styles.get(pair.style) or self.panel.style_statistics(self.panel.extract(sources.style))
        if (
            len(styles) < STYLE_CACHE_SIZE
        ):  # a full house stays: styles come in turn, so the oldest is the next one needed
            styles[pair.style] = marks
        for subject in subjects:
            made = subject.make(pair, sources)
            unchanged = made.picture is sources.content
            values = self.panel.score(content if unchanged else self.panel.extract(made.picture), content, marks)
            self.on_result(subject, pair, made)
            self.records.add({
                "key": self.key(subject, pair), "subject": subject.name, "content": pair.content.stem,
                "style": pair.style.stem, "seconds": made.seconds, "resized": made.resized,
                "pixels": made.picture.shape[-2] * made.picture.shape[-1], "values": values,
            })  # fmt: skip

    def sources(self, pair: Pair) -> Sources:
        return Sources(*(load_reduced(path, self.size) for path in pair))

    def key(self, subject: Method, pair: Pair) -> str:
        """Of a record: changes with whatever changes its numbers."""
        files = [file_identity(path) for path in pair]
        told = json.dumps([self._judges, self.size, files, subject.identity(pair)])
        return hashlib.sha256(told.encode()).hexdigest()[:20]

    @cached_property
    def _judges(self) -> str:
        return self.panel.identity()

    def record(self, subject: Method, pair: Pair) -> Record | None:
        return self.records.found.get(self.key(subject, pair))

    def complete(self) -> dict[Pair, list[Record]]:
        """Pairs that every subject has numbers for -> their records, in the order of the subjects."""
        found = {}
        for pair in self.pairs:
            records = [self.record(subject, pair) for subject in self.subjects]
            known = [record for record in records if record is not None]
            if len(known) == len(records):
                found[pair] = known
        return found


def load_reduced(path: Path, size: int) -> Tensor:
    """A picture whose short side is at most `size`; 0 keeps it."""
    picture = load_image(path)
    return resize_image(picture, short_side=size) if 0 < size < min(picture.shape[-2:]) else picture
