"""Make a comparison sheet: every content in every style, in one picture."""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..errors import ImageError
from ..inference.coarse_to_fine import plan_passes
from ..inference.stylize import stylize
from ..io.image_files import find_images
from ..io.images import load_color_and_alpha, load_over_white, save_image
from ..models.model import StyleTransferModel
from ..ops.opacity import fill_clear, over_white
from ..ops.resize import resize_image
from ..runtime.progress import ProgressCallback, StepCounter, progress_bar, sub_progress
from .shared.idle_options import Idle, remark_idle
from .shared.options import add_model_options, add_refine_option, add_stroke_option, open_model, pixels, refine_dtype
from .shared.paths import check_no_input_among, check_output, input_path, output_path, report

EXAMPLES = """\
example:
  adaattn compare --content photos/ --style a.jpg b.jpg -o sheet.jpg
"""
IDLE = (
    Idle(
        "--stroke-size", lambda args: len(plan_passes((args.size, args.size), args.stroke_size)) == 1,
        "on cells this small, which are painted in one pass; a larger --size makes several",
    ),
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    for name, place in (("content", "one row each"), ("style", "one column each")):
        parser.add_argument(
            f"--{name}", nargs="+", required=True, type=input_path, metavar=name[0].upper(),
            help=f"{name} pictures: files, folders or glob patterns; {place}",
        )  # fmt: skip
    parser.add_argument("-o", "--output", required=True, type=output_path, metavar="SHEET", help="picture to write")
    parser.add_argument(
        "--size", type=pixels, default=256, metavar="PX",
        help="side of each cell; all pictures are cropped to squares of this size first (default: %(default)s)",
    )  # fmt: skip
    add_refine_option(parser)
    add_stroke_option(parser)
    add_model_options(parser, refines=True)


def run(args: argparse.Namespace) -> int:
    started = time.monotonic()
    check_output(args.output)
    files = [find_images(patterns) for patterns in (args.content, args.style)]
    check_no_input_among([args.output], itertools.chain(*files))
    remark_idle(IDLE, args)
    contents = [center_square(load_over_white(path), args.size) for path in files[0]]
    styles, alphas = zip(*(_style_cell(path, args.size) for path in files[1]), strict=True)
    model = open_model(args)
    total = len(styles) * (args.refine or 1)
    with progress_bar(total, unit="step" if args.refine else "style", piped=True) as bar:
        sheet = comparison_sheet(
            model,
            contents,
            styles,
            style_alphas=alphas,
            refine_steps=args.refine,
            refine_dtype=refine_dtype(args.precision),
            stroke_size=args.stroke_size,
            progress=StepCounter(bar, total),
        )
    save_image(sheet, args.output)
    report(f"{args.output}  {sheet.shape[-1]}x{sheet.shape[-2]}  {time.monotonic() - started:.1f} s", args.output)
    return 0


def _style_cell(path: Path, side: int) -> tuple[Tensor, Tensor | None]:
    """A style as a square, over white, and its opacity."""
    color, alpha = load_color_and_alpha(path)
    square = None if alpha is None else center_square(alpha, side)
    if square is not None and not bool((square > 0.5).any()):
        raise ImageError(f"{path} is clear in the square that is used; a style needs visible parts. Crop it first.")
    return center_square(over_white(color, alpha), side), square


# The sheet

GAP_PX = 4
"""Width of the white gap between pictures."""


def comparison_sheet(
    model: StyleTransferModel,
    contents: Sequence[Tensor],
    styles: Sequence[Tensor],
    *,
    style_alphas: Sequence[Tensor | None] | None = None,
    refine_steps: int = 0,
    refine_dtype: torch.dtype | None = None,
    stroke_size: float = 0.0,
    progress: ProgressCallback | None = None,
) -> Tensor:
    """A grid of every content in every style, with the contents on the left and the styles on top, on white.

    Args:
        model: from `load_model`.
        contents, styles: at least one of each; (1, 3, H, W) in [0, 1], all of one size.
        style_alphas: opacity of each style, (1, 1, H, W), or None; clear parts are shown as they are, and not used.
        refine_steps, refine_dtype, stroke_size: see `stylize`.

    Returns:
        (1, 3, H, W) float32 in [0, 1]: len(contents) + 1 rows of len(styles) + 1 pictures; the top left one is white.
    """
    batch = torch.cat(list(contents))
    left = torch.cat([torch.ones_like(batch[:1]), batch])
    columns = [left]
    alphas = [None] * len(styles) if style_alphas is None else style_alphas
    for index, (style, alpha) in enumerate(zip(styles, alphas, strict=True)):
        part = sub_progress(progress, index / len(styles), (index + 1) / len(styles))
        painted = stylize(
            model,
            batch,
            fill_clear(style, alpha),
            style_masks=[alpha],
            refine_steps=refine_steps,
            refine_dtype=refine_dtype,
            stroke_size=stroke_size,
            progress=part,
        )
        columns.append(torch.cat([style, painted]))
    cells = F.pad(torch.stack(columns), (0, GAP_PX, 0, GAP_PX), value=1.0)
    sheet = rearrange(cells, "column row c h w -> 1 c (row h) (column w)")
    return sheet[..., : sheet.shape[-2] - GAP_PX, : sheet.shape[-1] - GAP_PX]


def center_square(image: Tensor, side: int) -> Tensor:
    """The largest central square of a picture (B, C, H, W), resized to (B, C, side, side)."""
    image = resize_image(image, short_side=side)
    top, left = (image.shape[-2] - side) // 2, (image.shape[-1] - side) // 2
    return image[..., top : top + side, left : left + side]
