"""Options that several commands share: definitions, value types, and the styles that --style names."""

from __future__ import annotations

import argparse
import math
from argparse import ArgumentTypeError
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...checkpoints.model_file import DEFAULT_MODEL, load_model
from ...errors import ImageError
from ...inference.coarse_to_fine import MAX_STROKE_SIZE, MAX_STYLE_SIDE, STROKE_SIDE
from ...inference.refine import MAX_STEPS
from ...inference.stages import ATTENTIONS
from ...inference.stylize import KeptStyles, encode_style
from ...io.image_files import FoundImage, search_images
from ...io.images import load_color_and_alpha, load_mask
from ...models.fusion import StyleFeatures
from ...models.model import StyleTransferModel
from ...ops.layout import counted
from ...ops.masks import fit_mask
from ...ops.opacity import fill_clear
from ...ops.resize import MIN_SIDE, resize_image
from ...runtime.device import PRECISIONS, inference_dtype, pick_device
from .paths import input_path

NO_MASK = "none"
"""Value of --style-mask for a style without a mask."""
STYLE_SIDE = 512
"""Default of --style-size, in pixels, in a single pass."""


MODEL_HELP = (
    "base paints the better pictures, compact takes a fourth of the time; compact-0.1 is the compact model of version "
    "0.1, published is what adaattn convert makes of the authors' weights. Or the path of a .safetensors file "
    "(default: %(default)s)"
)
REFINE_PRECISION = (
    ". Refinement runs in bfloat16 where the device computes it natively, and in float32 where it does not or float32 "
    "is given"
)


def add_stylize_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--strength", type=fraction, default=1.0, metavar="X",
        help="strength of the style: 0 gives the content unchanged, 1 the full style (default: 1)",
    )  # fmt: skip
    group.add_argument(
        "--style-weights", type=weights, metavar="X,X",
        help="weight of each style in a mix; only the proportions count (default: equal weights)",
    )  # fmt: skip
    group.add_argument(
        "--keep-color", action="store_true", help="keep the colours of the content and change only its brightness"
    )
    group.add_argument(
        "--temperature", type=positive_number, default=1.0, metavar="X",
        help="values above 1 blend more parts of the style into each place, values below 1 fewer (default: 1)",
    )  # fmt: skip
    group.add_argument(
        "--attention", choices=ATTENTIONS, default=ATTENTIONS[0],
        help="exact uses every style position, sampled uses 4096 random style positions (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--seed", type=integer, default=0, metavar="N", help="random seed of sampled attention (default: 0)"
    )


def add_refine_option(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--refine", type=refine_steps, default=0, metavar="N",
        help="after style transfer, optimise the pixels in N steps until the strokes of the style show; 60 to 100 are "
        "usual. 60 steps take about a minute for a picture of 512 x 512 pixels on two CPU cores; larger pictures take "
        "longer (default: 0, which is fastest)",
    )  # fmt: skip


def add_stroke_option(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--stroke-size", type=stroke_size, default=0.0, metavar="X",
        help="size of the strokes relative to the picture: 1 is that of a picture with a short side of "
        f"{STROKE_SIDE} pixels, 2 twice that. Larger pictures are painted in several passes, coarse to fine, which "
        "take about half as much time again (default: 0, one pass, in which strokes have the same size in pixels in "
        "every picture)",
    )  # fmt: skip


def add_size_options(group: argparse._ArgumentGroup, contents: str, style_default: str = f"{STYLE_SIDE}") -> None:
    """Adds --size and --style-size; `contents` is the plural noun for what is stylized."""
    group.add_argument(
        "--size", type=pixels_or_zero, default=0, metavar="PX",
        help=f"resize the {contents} to this short side (default: 0, which keeps the size)",
    )  # fmt: skip
    group.add_argument(
        "--style-size", type=pixels_or_zero, metavar="PX",
        help="reduce styles whose short side is longer to this short side; 0 keeps their size "
        f"(default: {style_default})",
    )  # fmt: skip


def add_style_mask_option(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--style-mask", action="append", type=input_path, metavar="M",
        help="mask picture: only the white part of the style is used. Give the option once for each --style, with the "
        f"value {NO_MASK} for a style without a mask",
    )  # fmt: skip


def add_memory_option(parser: argparse.ArgumentParser, effect: str) -> None:
    """Adds --max-memory-gb; `effect` names the cost of a limit."""
    parser.add_argument(
        "--max-memory-gb", type=positive_number, metavar="X",
        help=f"most memory that the program may use, in GiB; {effect} (default: no limit, which is fastest)",
    )  # fmt: skip


def add_model_options(parser: argparse.ArgumentParser, default: str = DEFAULT_MODEL, refines: bool = False) -> None:
    """Adds --model, --device and --precision; `refines` is true for commands that have --refine."""
    group = parser.add_argument_group("model")
    group.add_argument("--model", default=default, metavar="NAME|FILE", help=MODEL_HELP)
    group.add_argument(
        "--device", default="auto",
        help="auto, cpu, cuda, cuda:1, mps, ...; adaattn info lists the devices of this machine "
        "(default: auto, the fastest device)",
    )  # fmt: skip
    group.add_argument(
        "--precision", default="auto", choices=PRECISIONS,
        help="auto is float32. float16 is for GPUs: the merge convolution and the decoder run in float16, and the "
        "result stays within 0.5/255 of float32. bfloat16 covers only those of their layers that stay within 2/255, "
        "which saves little. Attention always runs in float32" + REFINE_PRECISION * refines,
    )  # fmt: skip


def open_model(args: argparse.Namespace, device: torch.device | None = None) -> StyleTransferModel:
    """The model that the options of `add_model_options` name, on `device` or else on the device of --device."""
    device = device or pick_device(args.device)
    return load_model(args.model, device=device, dtype=inference_dtype(args.precision))


def refine_dtype(precision: str) -> torch.dtype | None:
    """The `dtype` of `refine` for a value of --precision."""
    return torch.float32 if precision == "float32" else None


# Styles


class Styles:
    """The style pictures of a mix with their masks, read once and encoded once. Clear parts of a style are masked.

    Args:
        paths: the style pictures.
        masks: for each style the path of its mask, or NO_MASK.
        args: the options of `add_stylize_options`, `add_size_options` and `add_stroke_option`.
    """

    def __init__(self, paths: Sequence[Path], masks: Sequence[str], args: argparse.Namespace) -> None:
        self.paths, self.masks, self.args = paths, masks, args
        self.pictures: list[tuple[Tensor, Tensor | None]] = []
        self.features: list[StyleFeatures] = []
        self.kept: list[Tensor] | None = None

    def read(self) -> None:
        """Reads the pictures and masks, at the first call only.

        Raises:
            ImageError: a file cannot be read.
            ValueError: a mask does not fit its style.
        """
        if self.pictures:
            return
        largest = self.args.style_size
        if largest is None:
            largest = MAX_STYLE_SIDE if self.args.stroke_size else STYLE_SIDE
        pictures = []
        for path, mask_path in zip(self.paths, self.masks, strict=True):
            color, alpha = load_color_and_alpha(path)
            picture, mask = fill_clear(color, alpha), alpha
            if alpha is not None and not bool((alpha > 0.5).any()):
                raise ImageError(f"{path} is clear everywhere; a style needs visible parts. Choose another picture.")
            if mask_path != NO_MASK:
                mask = fit_mask(load_mask(mask_path), picture, "style") * (1 if alpha is None else alpha)
            if largest and min(picture.shape[-2:]) > largest:
                picture = resize_image(picture, short_side=largest)
            pictures.append((picture, mask))
        self.pictures = pictures

    def encoded(self, model: StyleTransferModel) -> list[StyleFeatures]:
        """The style features for `stylize`; call `read` first."""
        if not self.features:
            args = self.args
            options = {"attention": args.attention, "seed": args.seed, "max_memory_gb": args.max_memory_gb}
            self.features = [encode_style(model, picture, mask=mask, **options) for picture, mask in self.pictures]
        return self.features

    def source(self, model: StyleTransferModel) -> dict[str, Any]:
        """The arguments of `stylize` that say which styles: encoded ones, or pictures for passes of several sizes."""
        if not self.args.stroke_size:
            return {"style": self.encoded(model)}
        pictures, masks = zip(*self.pictures, strict=True)
        if self.kept is None:  # a memory limit leaves no room to keep styles
            self.kept = list(pictures) if self.args.max_memory_gb else KeptStyles(pictures)
        options = {"attention": self.args.attention, "seed": self.args.seed, "stroke_size": self.args.stroke_size}
        return {"style": self.kept, "style_masks": masks, **options}


def find_styles(
    patterns: Sequence[str], allow_many: bool = True, without: str | None = None, option: str = "--style"
) -> list[FoundImage]:
    """The style pictures that the values of an option name.

    Args:
        patterns: files, folders or globs. Each has to name one picture, except as follows.
        allow_many: a single pattern may name several pictures, to be used one after another.
        without: a folder for results, which is not searched (`search_images`).
        option: names the option in messages.

    Raises:
        ImageError: a pattern names no picture.
        ValueError: a pattern names several pictures where one is needed.
    """
    searches = [search_images([pattern], without) for pattern in patterns]
    for unreadable in (line for search in searches for line in search.unreadable):
        raise ImageError(unreadable)
    matches = [search.images for search in searches]
    for pattern, paths in zip(patterns, matches, strict=True):
        if len(paths) > 1 and not (allow_many and len(patterns) == 1):
            needed = "with several --style options, each needs one picture" if allow_many else "one picture is needed"
            advice = "Name the pictures" + (", or give only this --style to use them one by one" if allow_many else "")
            raise ValueError(f"{option} {pattern} holds {len(paths)} pictures; {needed}. {advice}.")
    return [path for paths in matches for path in paths]


def style_masks(args: argparse.Namespace, styles: Sequence[Path]) -> list[str]:
    """The mask of each style: a path or NO_MASK.

    Raises:
        ValueError: there are more or fewer masks than styles.
    """
    masks: list[str] = args.style_mask or [NO_MASK] * len(styles)
    if len(masks) != len(styles):
        raise ValueError(
            f"{counted(len(masks), 'style mask')} came for {counted(len(styles), 'style')}; one is needed for each "
            f"style. Give {NO_MASK!r} for a style without a mask."
        )
    return masks


def check_style_weights(args: argparse.Namespace, styles: Sequence[Path], is_mix: bool = True) -> None:
    """Raises a ValueError if --style-weights does not have one weight for each style of a mix."""
    if args.style_weights and not (is_mix and len(args.style_weights) == len(styles)):
        purpose = "to mix" if is_mix else "to use one by one"
        raise ValueError(
            f"{counted(len(args.style_weights), 'style weight')} came for {counted(len(styles), 'style')} {purpose}; "
            "one is needed for each --style to mix. Add or remove weights."
        )


# Types of option values: each turns the text into a value, or raises an ArgumentTypeError


def number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not a number") from None


def integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not a whole number") from None


def positive_integer(text: str) -> int:
    value = integer(text)
    if value < 1:
        raise ArgumentTypeError(f"{text} is out of range; it must be at least 1")
    return value


def fraction(text: str) -> float:
    """A number from 0 to 1."""
    value = number(text)
    if not 0 <= value <= 1:
        raise ArgumentTypeError(f"{text} is out of range; it must be between 0 and 1")
    return value


def non_negative_number(text: str) -> float:
    value = number(text)
    if not 0 <= value < math.inf:
        raise ArgumentTypeError(f"{text} is out of range; it must be 0 or above")
    return value


def positive_number(text: str) -> float:
    value = number(text)
    if not 0 < value < math.inf:
        raise ArgumentTypeError(f"{text} is out of range; it must be above 0")
    return value


def refine_steps(text: str) -> int:
    """The number of steps of refinement."""
    value = integer(text)
    if not 0 <= value <= MAX_STEPS:
        raise ArgumentTypeError(f"{text} is out of range; it must be between 0 and {MAX_STEPS}")
    return value


def stroke_size(text: str) -> float:
    """The size of strokes relative to the picture; 0 is a single pass."""
    value = number(text)
    if not 0 <= value <= MAX_STROKE_SIZE:
        raise ArgumentTypeError(f"{text} is out of range; it must be between 0 and {MAX_STROKE_SIZE:g}")
    return value


def pixels(text: str) -> int:
    """The side of a picture in pixels."""
    value = integer(text)
    if value < MIN_SIDE:
        raise ArgumentTypeError(f"{text} is out of range; at least {MIN_SIDE} pixels are needed")
    return value


def pixels_or_zero(text: str) -> int:
    """The side of a picture in pixels; 0 keeps the size of the picture."""
    return 0 if text == "0" else pixels(text)


def weights(text: str) -> list[float]:
    """Numbers separated by commas: none negative, at least one above 0."""
    values = [number(part) for part in text.split(",")]
    if not all(0 <= value < math.inf for value in values) or not sum(values):
        raise ArgumentTypeError(f"{text} is out of range; no weight may be negative, and one must be above 0")
    return values
