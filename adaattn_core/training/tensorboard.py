"""TensorBoard's view of a training run: losses, sample pictures, and how fast it goes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from torch import Tensor

FOLDER = "tensorboard"
"""Inside the run folder."""


def summary_writer_class() -> Any:  # noqa: ANN401  # torch.utils.tensorboard has no types
    """torch's writer, which needs a package of the extra [train].

    Raises:
        ValueError: that package is missing.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(
            "--tensorboard needs the package tensorboard, which is not installed. Run: pip install tensorboard"
        ) from error
    return SummaryWriter


class TensorBoardLogger:
    """Writes RUN/tensorboard; what a run that was killed wrote after `step` is hidden.

    Args:
        run: the run folder.
        step: steps done so far.
        batch: pairs per step.
    """

    def __init__(self, run: Path, step: int, batch: int) -> None:
        self.writer = summary_writer_class()(str(run / FOLDER), purge_step=step + 1 if step else None)
        self.batch = batch
        self.last: float | None = None

    def add(self, step: int, losses: dict[str, float]) -> None:
        """Losses of a step, and the pairs per second since the step before, all that was done between included."""
        for name, value in losses.items():
            self.writer.add_scalar(name if name == "gradient_norm" else f"loss/{name}", value, step)
        now = time.perf_counter()
        if self.last is not None:
            self.writer.add_scalar("pairs_per_second", self.batch / (now - self.last), step)
        self.last = now

    def show(self, step: int, sheet: Tensor) -> None:
        """Sample pictures. sheet: (3, H, W) in [0, 1]."""
        self.writer.add_image("samples", sheet, step)

    def close(self) -> None:
        self.writer.close()
