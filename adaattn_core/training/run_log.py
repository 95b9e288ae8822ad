"""The files that show the progress of a training run: losses.csv, losses.svg, samples/ and tensorboard/."""

from __future__ import annotations

import csv
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..io.files import atomic_path
from ..io.images import save_image
from ..models.model import StyleTransferModel
from .dataset import TrainingPairs

log = logging.getLogger(__name__)

COLUMNS = (
    "step", "stage", "total", "distill", "pixel", "global", "local", "patch", "content",
    "identity", "color", "mesh", "similarity", "teacher", "gradient_norm",
)  # fmt: skip
"""Columns of losses.csv; the losses are those that `objective.batch_losses` names."""
TENSORBOARD = "tensorboard"
"""Folder of TensorBoard's files in the run folder."""
SMALLEST_LOSS = 1e-9
"""Losses are raised to this value for the logarithmic scale."""
MAX_PLOT_POINTS = 400
"""Points of one curve in losses.svg, about."""


class RunLogger:
    """Writes losses.csv, losses.svg and samples/, and TensorBoard's files if asked to.

    Rows after `step`, which a killed run wrote after its last save, are removed at the start.

    Args:
        folder: the run folder.
        step: number of finished steps.
        tensorboard: receives the same losses and samples.
    """

    def __init__(self, folder: Path, step: int, tensorboard: TensorBoardLogger | None = None) -> None:
        self.folder, self.tensorboard = folder, tensorboard
        self.can_plot = _has_matplotlib()
        if not self.can_plot:
            log.warning("losses.svg is not drawn: the package matplotlib is not installed. Run: pip install matplotlib")
        path = folder / "losses.csv"
        self.rows = _read_rows(path, step) if step and path.exists() else []
        with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
            rewriter = csv.DictWriter(file, COLUMNS)
            rewriter.writeheader()
            rewriter.writerows(self.rows)
        self.file = path.open("a", newline="", buffering=1)
        self.writer = csv.DictWriter(self.file, COLUMNS)
        self.plotted_rows = -1

    def __enter__(self) -> RunLogger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()
        if self.tensorboard:
            self.tensorboard.close()
        self._plot()

    def add(self, step: int, stage: str, losses: dict[str, float]) -> None:
        """Write one row.

        Args:
            step: number of finished steps, this one included.
            stage: the step's stage.
            losses: what `Trainer.train_step` returned.
        """
        row = {"step": str(step), "stage": stage, **{name: f"{value:.6g}" for name, value in losses.items()}}
        self.rows.append(row)
        self.writer.writerow(row)
        if self.tensorboard:
            self.tensorboard.add(step, losses)

    def sample(self, model: StyleTransferModel, pairs: TrainingPairs, step: int, count: int = 8) -> None:
        """Write samples/step-N.jpg: a row of contents, one of styles and one of results, always of the same pairs.

        The loss curve is drawn as well.
        """
        candidates = range(max(0, len(pairs) - 4 * count), len(pairs))
        indices = [i for i in candidates if i % pairs.schedule.batch >= pairs.schedule.n_self_pairs]
        samples = [pairs[i] for i in indices[-count:] or [len(pairs) - 1]]
        content = torch.stack([sample.content for sample in samples])
        style = torch.stack([sample.style for sample in samples])
        device = next(model.parameters()).device
        with torch.inference_mode(), _warning_of_unused_deep_levels(model, step):
            result = model(content.to(device), style.to(device)).float().cpu().clamp(0, 1)
        rows = [torch.cat(list(images), dim=-1) for images in (content, style, result)]
        sheet = torch.cat(rows, dim=-2)
        if self.tensorboard:
            self.tensorboard.show(step, sheet)
        save_image(sheet[None], self.folder / "samples" / f"step-{step:06d}.jpg")
        self._plot()

    def _plot(self) -> None:
        if self.can_plot and self.plotted_rows != len(self.rows):
            points = [(int(row["step"]), row["stage"], float(row["total"])) for row in self.rows]
            with atomic_path(self.folder / "losses.svg") as temporary:
                plot_losses(points, temporary)
            self.plotted_rows = len(self.rows)


@contextmanager
def _warning_of_unused_deep_levels(model: StyleTransferModel, step: int) -> Iterator[None]:
    """Warn if the decoder's convolution after the deep levels gives only zeros: the loss falls, but less than it could.

    A ReLU that is 0 everywhere has no gradient, so this does not change by itself.
    """
    is_active: list[bool] = []
    deep = model.decoder.deep
    hook = deep and deep.register_forward_hook(lambda _module, _in, output: is_active.append(bool((output > 0).any())))
    yield
    if hook:
        hook.remove()
    if not all(is_active):
        log.warning(
            "step %d: the decoder no longer sees relu4_1 and relu5_1 (its deep convolution is below 0 everywhere); "
            "start again with a lower learning rate, or with --deep-lr-scale 0.05",
            step,
        )


def _read_rows(path: Path, step: int) -> list[dict[str, str]]:
    """Rows up to a step, without an incomplete one that was being written when the run was killed."""
    with path.open(newline="") as file:
        return [row for row in csv.DictReader(file) if None not in row.values() and int(row["step"]) <= step]


# ---------------------------------------------------------------- losses.svg


def _has_matplotlib() -> bool:
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        return False
    return True


def plot_losses(points: Sequence[tuple[int, str, float]], path: Path) -> None:
    """Draw the total loss as an SVG file: a panel for each stage, as each minimises another loss.

    A thin line shows the loss of every step, a bold one its moving average over a fortieth of the stage. The scale is
    logarithmic; one loss in 200 at each end may lie outside.

    Args:
        points: step, stage and loss of every step.
        path: the file to write.
    """
    import matplotlib
    from matplotlib.figure import Figure

    stages = [(name, np.array([(step, loss) for step, _, loss in group])) for name, group in groupby(points, _stage)]
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "adaattn", "font.size": 9}):
        figure = Figure(figsize=(9.6, 3.8))
        figure.suptitle(f"Training loss, {points[-1][0]} steps" if points else "Training loss, no step yet")
        figure.supxlabel("step")
        figure.supylabel("total loss (log scale)")
        shares = [
            0.5 / len(stages) + 0.5 * len(curve) / len(points) for _, curve in stages
        ]  # short stages stay legible
        panels = figure.subplots(1, len(stages), squeeze=False, width_ratios=shares)[0] if stages else []
        for axes, (name, curve) in zip(panels, stages, strict=True):
            steps, losses = curve[:, 0], curve[:, 1].clip(min=SMALLEST_LOSS)
            average = moving_average(losses, max(1, len(losses) // 40))
            axes.semilogy(*thin(steps, losses), color="#9ec5ea", linewidth=0.8, gid=f"{name} loss")
            axes.semilogy(*thin(steps, average), color="#0b5cad", linewidth=2, gid=f"{name} average")
            axes.set_ylim(*_limits(losses, average))
            axes.set_title(f"{name}\nnow {average[-1]:.4g}", loc="left")
            axes.grid(color="#e4e4e4")
        figure.subplots_adjust(left=0.08, right=0.98, bottom=0.15, top=0.8)
        figure.savefig(path, format="svg", metadata={"Date": None})


def _stage(point: tuple[int, str, float]) -> str:
    return point[1]


def _limits(losses: NDArray[np.float64], average: NDArray[np.float64]) -> tuple[float, float]:
    """Lower and upper end of a panel: one loss in 200 may lie outside on each side, the moving average may not."""
    ordered = np.sort(losses)
    outliers = len(ordered) // 200
    lower = max(SMALLEST_LOSS / 2, 0.95 * min(ordered[outliers], average.min()))
    return lower, 1.05 * max(ordered[-1 - outliers], average.max(), 2 * lower)


def moving_average(values: NDArray[np.float64], reach: int) -> NDArray[np.float64]:
    """Each value averaged with the `reach` values before and after it, or as many as there are.

    >>> moving_average(np.array([3.0, 6.0, 0.0]), 1).tolist()
    [4.5, 3.0, 3.0]
    """
    sums = np.concatenate([[0.0], np.cumsum(values)])
    indices = np.arange(len(values))
    start, stop = np.maximum(0, indices - reach), np.minimum(len(values), indices + reach + 1)
    average: NDArray[np.float64] = (sums[stop] - sums[start]) / (stop - start)
    return average


def thin(
    steps: NDArray[np.float64], losses: NDArray[np.float64], maximum: int = MAX_PLOT_POINTS
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Reduce a curve to about `maximum` points: the lowest and the highest of each interval, and the last point.

    >>> thin(np.array([1.0, 2, 3, 4]), np.array([5.0, 1, 9, 4]), 2)
    (array([2., 3., 4.]), array([1., 9., 4.]))
    """
    if len(steps) <= maximum:
        return steps, losses
    intervals = np.array_split(np.arange(len(steps)), max(1, maximum // 2))
    extremes = {int(interval[pick(losses[interval])]) for interval in intervals for pick in (np.argmin, np.argmax)}
    kept = sorted(extremes | {len(steps) - 1})
    return steps[kept], losses[kept]


# ---------------------------------------------------------------- TensorBoard


def summary_writer_class() -> Any:  # noqa: ANN401  # torch.utils.tensorboard has no types
    """torch's SummaryWriter, which needs the package tensorboard, part of the extra [train].

    Raises:
        ValueError: the package is missing.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(
            "--tensorboard needs the package tensorboard, which is not installed. Run: pip install tensorboard"
        ) from error
    return SummaryWriter


class TensorBoardLogger:
    """Writes tensorboard/ in the run folder; what a killed run wrote after `step` is hidden.

    Args:
        folder: the run folder.
        step: number of finished steps.
        batch: pairs in one step.
    """

    def __init__(self, folder: Path, step: int, batch: int) -> None:
        self.writer = summary_writer_class()(str(folder / TENSORBOARD), purge_step=step + 1 if step else None)
        self.batch = batch
        self.last_time: float | None = None

    def add(self, step: int, losses: dict[str, float]) -> None:
        """Losses of a step, and the pairs per second since the step before, with everything done in between."""
        for name, value in losses.items():
            self.writer.add_scalar(name if name == "gradient_norm" else f"loss/{name}", value, step)
        now = time.perf_counter()
        if self.last_time is not None:
            self.writer.add_scalar("pairs_per_second", self.batch / (now - self.last_time), step)
        self.last_time = now

    def show(self, step: int, sheet: Tensor) -> None:
        """Sample pictures. sheet: (3, H, W) in [0, 1]."""
        self.writer.add_image("samples", sheet, step)

    def close(self) -> None:
        self.writer.close()
