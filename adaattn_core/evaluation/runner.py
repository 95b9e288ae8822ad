"""The evaluation loop: several methods measured on the same pairs of content and style, picture by picture.

Only the current pair's pictures are in memory, and every measurement is appended to a file at once, so that an
interrupted evaluation continues where it stopped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import ImageError
from ..io.files import atomic_path
from ..runtime.progress import ProgressBar
from .methods import Method, Output, Pair, Sources, file_identity, load_reduced
from .metric_suite import MetricSuite, PictureFeatures, StyleStatistics
from .picture_statistics import encode_statistics

STYLE_CACHE_SIZE = 200
"""Styles whose statistics stay in memory, about 3 MB each."""

Record = dict[str, Any]


@dataclass
class Records:
    """Measurements by key, in memory and as lines of a JSON Lines file."""

    path: Path
    by_key: dict[str, Record] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path, fresh: bool = False) -> Records:
        """Records of earlier runs, without a last line that an interruption cut short; `fresh` discards all of them."""
        records = cls(path)
        if fresh:
            for old in (path, *records._parts()):
                old.unlink(missing_ok=True)
        records._read(path)
        records.merge()
        return records

    @classmethod
    def open_part(cls, path: Path, rank: int) -> Records:
        """Those at `path`, which another process has opened; new ones go to a file of this process beside it."""
        records = cls(path.with_name(f"{path.stem}-{rank}{path.suffix}"))
        records._read(path)
        return records

    def merge(self) -> None:
        """Takes in what other processes have added (`open_part`), whose files are removed."""
        parts = self._parts()
        for part in parts:
            self._read(part)
        with atomic_path(self.path) as temporary:
            temporary.write_text("".join(json.dumps(x) + "\n" for x in self.by_key.values()), encoding="utf-8")
        for part in parts:
            part.unlink()

    def _parts(self) -> list[Path]:
        return sorted(self.path.parent.glob(f"{self.path.stem}-*{self.path.suffix}"))

    def _read(self, path: Path) -> None:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
        for line in lines:
            try:
                record = json.loads(line)
                self.by_key[record["key"]] = record
            except (ValueError, LookupError, TypeError):
                continue

    def add(self, record: Record) -> None:
        """Append a record, whose key is `record["key"]`."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        self.by_key[record["key"]] = record


def ignore(method: Method, pair: Pair, output: Output) -> None:
    """An `on_result` that does nothing."""


@dataclass
class Evaluation:
    """The methods, metrics and pairs of an evaluation, and its measurements.

    Args:
        size: contents and styles with a longer short side are reduced to this one; 0 keeps them.
        on_result: called with each picture after it was measured.
        unreadable: pair name -> why one of its pictures cannot be read.
    """

    suite: MetricSuite
    methods: Sequence[Method]
    pairs: Sequence[Pair]
    records: Records
    size: int = 512
    on_result: Callable[[Method, Pair, Output], None] = ignore
    unreadable: dict[str, str] = field(default_factory=dict)

    def run(self, bar: ProgressBar, pairs: Sequence[Pair] | None = None) -> None:
        """Measure all pictures without a record; pairs with a picture that cannot be read go to `unreadable`.

        Args:
            pairs: those to measure; None is all.
        """
        contents: dict[Path, PictureFeatures] = {}
        styles: dict[Path, StyleStatistics] = {}
        for pair in self.pairs if pairs is None else pairs:
            remaining = [method for method in self.methods if self.record(method, pair) is None]
            bar.update(len(self.methods) - len(remaining))
            if remaining or self.style_key(pair) not in self.records.by_key:
                try:
                    self._measure(pair, remaining, contents, styles)
                except ImageError as error:
                    self.unreadable[pair.name] = str(error)
                bar.update(len(remaining))

    def _measure(
        self,
        pair: Pair,
        methods: Sequence[Method],
        contents: dict[Path, PictureFeatures],
        styles: dict[Path, StyleStatistics],
    ) -> None:
        """Measure one pair. `contents` caches the features of one content, `styles` the statistics of many styles."""
        sources = self.sources(pair)
        if pair.content not in contents:
            contents.clear()  # the pairs of one content are adjacent, and its features take 300 MB
            contents[pair.content] = self.suite.extract(sources.content)
        content = contents[pair.content]
        style = styles.get(pair.style) or self.suite.style_statistics(self.suite.extract(sources.style))
        if len(styles) < STYLE_CACHE_SIZE:  # a full cache keeps its styles: they recur in turn, the oldest first
            styles[pair.style] = style
        self._add_style(pair, style)
        for method in methods:
            output = method.stylize(pair, sources)
            unchanged = output.picture is sources.content
            score = self.suite.score(content if unchanged else self.suite.extract(output.picture), content, style)
            self.on_result(method, pair, output)
            self.records.add({
                "key": self.key(method, pair), "subject": method.name, "content": pair.content.stem,
                "style": pair.style.stem, "seconds": output.seconds, "resized": output.resized,
                "pixels": output.picture.shape[-2] * output.picture.shape[-1], "values": score.values,
                **_statistics_entry(score.statistics),
            })  # fmt: skip

    def _add_style(self, pair: Pair, style: StyleStatistics) -> None:
        key = self.style_key(pair)
        if key not in self.records.by_key:
            self.records.add({"key": key, "style": pair.style.stem, **_statistics_entry(style)})

    def sources(self, pair: Pair) -> Sources:
        return Sources(*(load_reduced(path, self.size) for path in pair))

    def key(self, method: Method, pair: Pair) -> str:
        """Key of a record: a digest that changes whenever the measurements would."""
        return self._digest([file_identity(path) for path in pair], method.identity(pair))

    def style_key(self, pair: Pair) -> str:
        """Key of the record of the pair's style, which holds its statistics."""
        return f"style {self._digest(file_identity(pair.style))}"

    def _digest(self, *identity: object) -> str:
        text = json.dumps([self._suite_identity, self.size, *identity])
        return hashlib.sha256(text.encode()).hexdigest()[:20]

    @cached_property
    def _suite_identity(self) -> str:
        return self.suite.identity()

    def record(self, method: Method, pair: Pair) -> Record | None:
        return self.records.by_key.get(self.key(method, pair))

    def complete(self) -> dict[Pair, list[Record]]:
        """Pairs that every method has measurements of -> their records, in the order of the methods."""
        complete = {}
        for pair in self.pairs:
            records = [self.record(method, pair) for method in self.methods]
            known = [record for record in records if record is not None]
            if len(known) == len(records):
                complete[pair] = known
        return complete


def _statistics_entry(statistics: StyleStatistics) -> Record:
    """The entry "statistics" of a record; empty without the network that they come from."""
    return {"statistics": encode_statistics(statistics.channels)} if statistics.channels else {}
