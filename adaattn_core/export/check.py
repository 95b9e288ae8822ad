"""Comparing exported files with PyTorch: six small pictures, painted by both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import ExportError
from ..inference.stylize import stylize
from ..io.images import load_image
from ..models.model import StyleTransferModel
from .graph import Precision

PICTURES = Path(__file__).parent / "pictures"
CONTENTS, STYLES = ("coffee", "chelsea", "rocket"), ("great_wave", "auvers", "composition_viii")

MAX_DIFFERENCE = {"float32": 1.0, "float16": 2.0}
"""Largest difference of a pixel, in steps of 1/255."""
MAX_MEAN_DIFFERENCE = {"int8": 3.0}
"""Largest mean difference of a picture, in steps of 1/255. Weights that are rounded to 8 bits change what attention
chooses in a few places, so single pixels differ by more."""


class Difference(NamedTuple):
    """Of pictures, in steps of 1/255."""

    largest: float
    """Of a pixel."""
    mean: float
    """Of the picture where it is largest."""


def picture_pairs() -> Iterator[tuple[Tensor, Tensor]]:
    """Six contents and styles: each content in two styles, first whole, then cropped to odd sizes and to a strip."""
    for index in range(6):
        content = load_image(PICTURES / f"{CONTENTS[index % 3]}.jpg")
        style = load_image(PICTURES / f"{STYLES[(index + index // 3) % 3]}.jpg")
        if index >= 3:
            height = (83, 51, 16)[index - 3]
            content, style = content[:, :, :height, : 57 + 2 * index], style[:, :, : 107 - 30 * (index - 3), :-9]
        yield content.contiguous(), style.contiguous()


def check_files(
    model: StyleTransferModel, files: Sequence[Path], precision: Precision, onnxruntime: ModuleType, name: Path
) -> Difference:
    """Compare files with their model.

    Args:
        model: in float32.
        files: one, or that of the style and that of the contents.
        precision: decides how large a difference may be.
        onnxruntime: the package.
        name: of the output, for the message.

    Raises:
        ExportError: a difference is too large.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    cpu = ["CPUExecutionProvider"]
    sessions = [onnxruntime.InferenceSession(str(file), options, providers=cpu) for file in files]
    differences = []
    for content, style in picture_pairs():
        values = {"content": content.numpy(), "style": style.numpy()}
        for session in sessions:
            wanted = {one.name: values[one.name] for one in session.get_inputs()}
            names = [one.name for one in session.get_outputs()]
            values |= dict(zip(names, session.run(names, wanted), strict=True))
        difference = np.abs(values["stylized"] - stylize(model, content, style).numpy()) * 255
        differences.append(Difference(float(difference.max()), float(difference.mean())))
    worst = Difference(*(float(np.max(column)) for column in zip(*differences, strict=True)))
    _check_difference(worst, precision, name)
    return worst


def _check_difference(difference: Difference, precision: Precision, name: Path) -> None:
    for kind, value, limits in (
        ("pixel", difference.largest, MAX_DIFFERENCE), ("picture on average", difference.mean, MAX_MEAN_DIFFERENCE),
    ):  # fmt: skip
        limit = limits.get(precision)
        if limit is not None and not value <= limit:  # written so that NaN fails
            advice = "Please report this." if precision == "float32" else "Choose --precision float32."
            raise ExportError(
                f"{name} is not written: in ONNX Runtime a {kind} differs by {value:.2f}/255 from PyTorch's, and "
                f"{limit:g}/255 is allowed in {precision}. {advice}"
            )
