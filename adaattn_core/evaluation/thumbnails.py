"""Thumbnails of some pairs for the report, cached beside it so that a later report need not compute them again."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from torch import Tensor

from ..io.files import atomic_path
from ..io.images import to_pil
from ..ops.resize import resize_image
from .methods import Method, Output, Pair
from .report import Example
from .runner import Evaluation, Record

LONG_SIDE = 400


class Thumbnails:
    """JPEG files of the pairs that the report shows, named after their records.

    Args:
        folder: folder of the files; created with the first one.
        pairs: all pairs of the evaluation.
        count: how many of them to show, evenly spaced.
    """

    def __init__(self, folder: Path, pairs: Sequence[Pair], count: int) -> None:
        self.folder = folder
        self.shown = {pairs[index * len(pairs) // count] for index in range(count)} if count else set()

    def save(self, evaluation: Evaluation, method: Method, pair: Pair, output: Output) -> None:
        """Save the thumbnail of a picture if the report shows it."""
        if pair in self.shown and method.kind != "reference":
            self._write(self._path(evaluation, method, pair), output.picture)

    def examples(self, evaluation: Evaluation, metrics: Sequence[Mapping[str, Any]]) -> list[Example]:
        """The measured pairs to show, with one style and one content metric below each picture.

        Args:
            metrics: "metrics" of the report's data.
        """
        measured = [metric for metric in metrics if metric["name"] in evaluation.suite.metrics]
        captions = [next((m for m in measured if m["side"] == side), None) for side in ("style", "content")]
        examples = []
        for pair, records in evaluation.complete().items():
            if pair not in self.shown:
                continue
            sources = evaluation.sources(pair)
            example = Example(pair.name, sources.content.shape[-1] / sources.content.shape[-2])
            example.add(_uri(jpeg(sources.content)), pair.content.stem)
            example.add(_uri(jpeg(sources.style)), pair.style.stem)
            for method, record in zip(evaluation.methods, records, strict=True):
                if method.kind != "reference":
                    path = self._path(evaluation, method, pair)
                    if not path.is_file():  # measured in an earlier run that showed other pairs
                        self._write(path, method.stylize(pair, sources).picture)
                    example.add(_uri(path.read_bytes()), _caption(record, [metric for metric in captions if metric]))
            examples.append(example)
        return examples

    def _path(self, evaluation: Evaluation, method: Method, pair: Pair) -> Path:
        return self.folder / f"{evaluation.key(method, pair)}.jpg"

    def _write(self, path: Path, picture: Tensor) -> None:
        self.folder.mkdir(exist_ok=True)
        with atomic_path(path) as temporary:
            temporary.write_bytes(jpeg(picture))


def jpeg(picture: Tensor) -> bytes:
    """A JPEG file of a picture (1, 3, H, W) in [0, 1], reduced to a long side of at most LONG_SIDE pixels."""
    if max(picture.shape[-2:]) > LONG_SIDE:
        picture = resize_image(picture, long_side=LONG_SIDE)
    encoded = BytesIO()
    to_pil(picture).save(encoded, "JPEG", quality=88)
    return encoded.getvalue()


def _uri(data: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")


def _caption(record: Record, metrics: Sequence[Mapping[str, Any]]) -> str:
    return " · ".join(f"{m['title']} {record['values'][m['name']]:.{m['digits']}f}" for m in metrics)
