"""What a person sees of a training run: losses.csv, losses.svg and samples/."""

from __future__ import annotations

import csv
from pathlib import Path
from types import TracebackType

import torch

from .data import TrainingPairs
from .images import atomic_path, save_image
from .model import StyleTransferModel

COLUMNS = ("step", "stage", "total", "distill", "pixel", "global", "local", "content", "gradient_norm")


class TrainLog:
    """Writes a row per step; rows after `step` (of a run that was killed past its last save) are dropped first."""

    def __init__(self, folder: Path, step: int) -> None:
        self.folder = folder
        self.rows: list[dict[str, str]] = []
        path = folder / "losses.csv"
        if path.exists() and step:
            with path.open(newline="") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
        self.file = path.open("w", newline="", buffering=1)
        self.writer = csv.DictWriter(self.file, COLUMNS)
        self.writer.writeheader()
        self.writer.writerows(self.rows)

    def __enter__(self) -> TrainLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()
        self.draw()

    def add(self, step: int, stage: str, losses: dict[str, float]) -> None:
        row = {"step": str(step), "stage": stage, **{name: f"{value:.6g}" for name, value in losses.items()}}
        self.rows.append(row)
        self.writer.writerow(row)

    def sample(self, model: StyleTransferModel, pairs: TrainingPairs, step: int, count: int = 8) -> None:
        """samples/step-N.jpg: contents above styles above results, the same pairs each time; losses.svg too."""
        indices = [i for i in range(len(pairs) - 4 * count, len(pairs)) if i >= 0 and i % pairs.batch >= pairs.self_items]
        chosen = [pairs[i] for i in indices[-count:] or [len(pairs) - 1]]
        content = torch.stack([sample.content for sample in chosen])
        style = torch.stack([sample.style for sample in chosen])
        device = next(model.parameters()).device
        with torch.inference_mode():
            result = model(content.to(device), style.to(device)).float().cpu().clamp(0, 1)
        rows = [torch.cat(list(images), dim=-1) for images in (content, style, result)]
        save_image(torch.cat(rows, dim=-2)[None], self.folder / "samples" / f"step-{step:06d}.jpg")
        self.draw()

    def draw(self) -> None:
        """losses.svg: the total loss of each stage over steps, smoothed, logarithmic."""
        with atomic_path(self.folder / "losses.svg") as temporary:
            temporary.write_text(loss_curve_svg([(int(r["step"]), r["stage"], float(r["total"])) for r in self.rows]))


def loss_curve_svg(points: list[tuple[int, str, float]], width: int = 900, height: int = 360) -> str:
    """An SVG picture of (step, stage, loss) points."""
    return f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}'/>"
