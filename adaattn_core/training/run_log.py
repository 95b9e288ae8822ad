"""What a person sees of a training run: losses.csv, losses.svg samples/, and TensorBoard."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import torch

from ..io.files import atomic_path
from ..io.images import save_image
from ..models.model import StyleTransferModel
from .dataset import TrainingPairs
from .loss_plot import loss_curve_svg
from .tensorboard import TensorBoardLogger

log = logging.getLogger(__name__)

COLUMNS = (
    "step", "stage", "total", "distill", "pixel", "global", "local", "content",
    "identity", "color", "mesh", "similarity", "gradient_norm",
)  # fmt: skip


class RunLogger:
    """Writes a row per step; rows after `step` (of a run that was killed past its last save) are dropped first."""

    def __init__(self, folder: Path, step: int, board: TensorBoardLogger | None = None) -> None:
        self.folder, self.board = folder, board
        path = folder / "losses.csv"
        self.rows = _read_rows(path, step) if step and path.exists() else []
        with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
            rewriter = csv.DictWriter(file, COLUMNS)
            rewriter.writeheader()
            rewriter.writerows(self.rows)
        self.file = path.open("a", newline="", buffering=1)
        self.writer = csv.DictWriter(self.file, COLUMNS)

    def __enter__(self) -> RunLogger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()
        if self.board:
            self.board.close()
        self.draw()

    def add(self, step: int, stage: str, losses: dict[str, float]) -> None:
        """The losses of the step that made `step` steps done."""
        row = {"step": str(step), "stage": stage, **{name: f"{value:.6g}" for name, value in losses.items()}}
        self.rows.append(row)
        self.writer.writerow(row)
        if self.board:
            self.board.add(step, losses)

    def sample(self, model: StyleTransferModel, pairs: TrainingPairs, step: int, count: int = 8) -> None:
        """samples/step-N.jpg: contents above styles above results, the same pairs each time; losses.svg too."""
        candidates = range(max(0, len(pairs) - 4 * count), len(pairs))
        indices = [i for i in candidates if i % pairs.batch >= pairs.self_items]
        chosen = [pairs[i] for i in indices[-count:] or [len(pairs) - 1]]
        content = torch.stack([sample.content for sample in chosen])
        style = torch.stack([sample.style for sample in chosen])
        device = next(model.parameters()).device
        with torch.inference_mode(), _told_if_deep_levels_are_lost(model, step):
            result = model(content.to(device), style.to(device)).float().cpu().clamp(0, 1)
        rows = [torch.cat(list(images), dim=-1) for images in (content, style, result)]
        sheet = torch.cat(rows, dim=-2)
        if self.board:
            self.board.show(step, sheet)
        save_image(sheet[None], self.folder / "samples" / f"step-{step:06d}.jpg")
        self.draw()

    def draw(self) -> None:
        """losses.svg: the total loss of each stage over steps."""
        points = [(int(row["step"]), row["stage"], float(row["total"])) for row in self.rows]
        with atomic_path(self.folder / "losses.svg") as temporary:
            temporary.write_text(loss_curve_svg(points), encoding="utf-8")


@contextmanager
def _told_if_deep_levels_are_lost(model: StyleTransferModel, step: int) -> Iterator[None]:
    """Warns when the decoder's way from the deep levels is shut: the loss still falls, but not to where it could."""
    seen: list[bool] = []
    deep = model.decoder.deep
    hook = deep and deep.register_forward_hook(lambda _module, _inputs, output: seen.append(bool((output > 0).any())))
    yield
    if hook:
        hook.remove()
    if not all(seen):
        log.warning(
            "step %d: the decoder no longer sees relu4_1 and relu5_1 (its deep convolution is below 0 everywhere); "
            "start again with a lower learning rate, or with --deep-lr-scale 0.05",
            step,
        )


def _read_rows(path: Path, step: int) -> list[dict[str, str]]:
    """Rows up to a step; one that was cut short, by a kill in the middle of writing, is left out."""
    with path.open(newline="") as file:
        return [row for row in csv.DictReader(file) if None not in row.values() and int(row["step"]) <= step]
