"""Small pictures of some pairs for the report, kept beside it so that a later report need not paint them again."""

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
from .report import Strip
from .runner import Evaluation, Record

LONG_SIDE = 400


class Gallery:
    """Keeps what is judged of the pairs to show, as JPEG files named after their records.

    Args:
        folder: for the files; made when the first one comes.
        pairs: those to choose from.
        count: how many to show, evenly taken.
    """

    def __init__(self, folder: Path, pairs: Sequence[Pair], count: int) -> None:
        self.folder = folder
        self.shown = {pairs[index * len(pairs) // count] for index in range(count)} if count else set()

    def see(self, evaluation: Evaluation, subject: Method, pair: Pair, made: Output) -> None:
        """Keep a picture if it is to be shown."""
        if pair in self.shown and subject.kind != "reference":
            self._keep(self._path(evaluation, subject, pair), made.picture)

    def strips(self, evaluation: Evaluation, metrics: Sequence[Mapping[str, Any]]) -> list[Strip]:
        """The pairs to show that have been judged, with two numbers below each picture.

        Args:
            metrics: of the report's data.
        """
        told = [
            next((m for m in metrics if m["side"] == side and not m["missing"]), None) for side in ("style", "content")
        ]
        strips = []
        for pair, records in evaluation.complete().items():
            if pair not in self.shown:
                continue
            sources = evaluation.sources(pair)
            pictures, words = [_uri(jpeg(source)) for source in sources], [pair.content.stem, pair.style.stem]
            for subject, record in zip(evaluation.subjects, records, strict=True):
                if subject.kind != "reference":
                    path = self._path(evaluation, subject, pair)
                    if not path.is_file():  # judged in an earlier run that showed other pairs
                        self._keep(path, subject.make(pair, sources).picture)
                    pictures.append(_uri(path.read_bytes()))
                    words.append(_words(record, [metric for metric in told if metric]))
            height, width = sources.content.shape[-2:]
            strips.append(Strip(pair.name, width / height, pictures, words))
        return strips

    def _path(self, evaluation: Evaluation, subject: Method, pair: Pair) -> Path:
        return self.folder / f"{evaluation.key(subject, pair)}.jpg"

    def _keep(self, path: Path, picture: Tensor) -> None:
        self.folder.mkdir(exist_ok=True)
        with atomic_path(path) as temporary:
            temporary.write_bytes(jpeg(picture))


def jpeg(picture: Tensor) -> bytes:
    """(1, 3, H, W) in [0, 1], reduced to a long side of LONG_SIDE where it is longer."""
    if max(picture.shape[-2:]) > LONG_SIDE:
        picture = resize_image(picture, long_side=LONG_SIDE)
    encoded = BytesIO()
    to_pil(picture).save(encoded, "JPEG", quality=88)
    return encoded.getvalue()


def _uri(data: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")


def _words(record: Record, metrics: Sequence[Mapping[str, Any]]) -> str:
    return " · ".join(f"{m['title']} {record['values'][m['name']]:.{m['digits']}f}" for m in metrics)
