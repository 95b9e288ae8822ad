"""Options that several commands share, and the kinds of value they take."""

from __future__ import annotations

import argparse
import math
import os
from argparse import ArgumentTypeError
from collections.abc import Iterable
from pathlib import Path

import torch

from ..checkpoints.model_file import BUILT_IN, MODEL_NAMES, load_model
from ..errors import OutputError
from ..inference.stages import ATTENTIONS
from ..io.images import output_format
from ..models.model import StyleTransferModel
from ..ops.resize import MIN_SIDE
from ..runtime.device import PRECISIONS, Precision, pick_device, pick_dtype

NO_MASK = "none"
STYLE_SIDE = 512


def add_paint_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--strength", type=unit, default=1.0, metavar="X", help="0 is the content, 1 the full style (default: 1)"
    )
    group.add_argument(
        "--style-weights", type=shares, metavar="X,X", help="share of each style in a mix (default: the same for all)"
    )
    group.add_argument("--keep-color", action="store_true", help="keep the content's colours, take only brightness")
    group.add_argument(
        "--temperature", type=positive, default=1.0, metavar="X",
        help="above 1 blends more of the style into each place, below 1 less (default: 1)",
    )  # fmt: skip
    group.add_argument(
        "--attention", choices=ATTENTIONS, default=ATTENTIONS[0],
        help="exact looks at all of the style, sampled at 4096 random places (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--seed", type=whole, default=0, metavar="N", help="which places sampled attention picks (default: 0)"
    )


def add_size_options(group: argparse._ArgumentGroup, contents: str) -> None:
    """`contents` names what is painted."""
    group.add_argument(
        "--size", type=side, default=0, metavar="PX",
        help=f"resize {contents} to this short side (default: 0, their own)",
    )  # fmt: skip
    group.add_argument(
        "--style-size", type=side, default=STYLE_SIDE, metavar="PX",
        help="reduce styles to this short side where theirs is longer; 0 keeps them (default: %(default)s)",
    )  # fmt: skip


def add_style_mask_option(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--style-mask", action="append", metavar="M",
        help=f"picture, white where to take the style from; once for each --style, {NO_MASK} for all of it",
    )  # fmt: skip


def add_memory_option(parser: argparse.ArgumentParser, price: str) -> None:
    """`price` says what a limit costs."""
    parser.add_argument(
        "--max-memory-gb", type=positive, metavar="X",
        help=f"GiB that the program may hold at the most; {price} (default: what is fastest)",
    )  # fmt: skip


def add_model_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model", default=BUILT_IN, metavar="NAME|FILE",
        help=f"{' or '.join(MODEL_NAMES)}, or a .safetensors file (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--device",
        default="auto",
        help="auto, cpu, cuda, cuda:1, mps, ... (default: the best there is; see adaattn info)",
    )
    group.add_argument(
        "--precision", default="auto", choices=PRECISIONS,
        help="auto is float32. float16 is for GPUs: merge and decoder, within .5/255 of float32. bfloat16: only the "
        "layers of these that stay within 2/255, which saves little. Attention stays in float32",
    )  # fmt: skip


def open_model(args: argparse.Namespace, device: torch.device | None = None) -> StyleTransferModel:
    """The model that the options of `add_model_options` name; on another device where one is given."""
    device = device or pick_device(args.device)
    # Not bfloat16 where it is native, as in training: what the command line paints is what the library paints.
    precision: Precision = "float32" if args.precision == "auto" else args.precision
    return load_model(args.model, device=device, dtype=pick_dtype(precision, device))


def check_output(path: str | Path) -> None:
    """Raises an ImageError or OutputError where a picture cannot be written, before any work is done for it."""
    output_format(path)
    check_folder(Path(path).parent)


def check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise OutputError(f"{folder} is not a folder, and the output goes there. Create it first.")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"{folder} may not be written to. Choose another folder, or change its permissions.")


def make_folder(folder: Path) -> None:
    """A folder for what is made, in one that exists, or an OutputError."""
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file, and a folder is needed there. Choose another name.")
    if not folder.exists():
        check_folder(folder.parent)
        folder.mkdir(exist_ok=True)
    check_folder(folder)


def check_no_input_among(outputs: Iterable[Path], inputs: Iterable[str | Path], kind: str = "pictures") -> None:
    """So that nobody loses a photo to its own repainted version."""
    originals = {_file_id(path) for path in inputs} - {None}
    for path in outputs:
        if _file_id(path) in originals:
            raise OutputError(f"{path} is one of the {kind} to read and would be lost. Choose another output.")


def _file_id(path: str | Path) -> tuple[int, int] | None:
    """The same for all names of a file; None where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not a number") from None


def whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not a whole number") from None


def count(text: str) -> int:
    """1 or more."""
    value = whole(text)
    if value < 1:
        raise ArgumentTypeError(f"{text} is out of range; it must be at least 1")
    return value


def unit(text: str) -> float:
    """0 to 1."""
    value = number(text)
    if not 0 <= value <= 1:
        raise ArgumentTypeError(f"{text} is out of range; it must be between 0 and 1")
    return value


def positive(text: str) -> float:
    value = number(text)
    if not 0 < value < math.inf:
        raise ArgumentTypeError(f"{text} is out of range; it must be above 0")
    return value


def pixels(text: str) -> int:
    value = whole(text)
    if value < MIN_SIDE:
        raise ArgumentTypeError(f"{text} is out of range; at least {MIN_SIDE} pixels are needed")
    return value


def side(text: str) -> int:
    """Pixels; 0 keeps the picture's own size."""
    return 0 if text == "0" else pixels(text)


def shares(text: str) -> list[float]:
    """Numbers separated by commas, none negative, one above 0."""
    values = [number(part) for part in text.split(",")]
    if not all(0 <= value < math.inf for value in values) or not sum(values):
        raise ArgumentTypeError(f"{text} will not do; shares must not be negative, and one must be above 0")
    return values
