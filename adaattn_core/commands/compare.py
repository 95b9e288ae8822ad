"""Make a comparison sheet: every content in every style, in one picture."""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path

from torch import Tensor

from ..errors import ImageError
from ..inference.comparison_grid import center_square, comparison_sheet
from ..io.image_files import find_images
from ..io.images import load_color_and_alpha, load_over_white, save_image
from ..ops.opacity import over_white
from ..runtime.progress import StepCounter, progress_bar
from .options import add_model_options, add_refine_option, open_model, pixels
from .shared.paths import check_no_input_among, check_output, input_path, output_path, report

EXAMPLES = """\
example:
  adaattn compare --content photos/ --style a.jpg b.jpg -o sheet.jpg
"""


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
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    started = time.monotonic()
    check_output(args.output)
    files = [find_images(patterns) for patterns in (args.content, args.style)]
    check_no_input_among([args.output], itertools.chain(*files))
    contents = [center_square(load_over_white(path), args.size) for path in files[0]]
    styles, alphas = zip(*(_style_cell(path, args.size) for path in files[1]), strict=True)
    model = open_model(args)
    total = len(styles) * (args.refine or 1)
    with progress_bar(total, unit="step" if args.refine else "style") as bar:
        sheet = comparison_sheet(
            model, contents, styles, style_alphas=alphas, refine_steps=args.refine, progress=StepCounter(bar, total)
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
