"""Make a comparison sheet: every content in every style, in one picture."""

from __future__ import annotations

import argparse
import itertools
import time

from ..inference.comparison_grid import center_square, comparison_sheet
from ..io.image_files import find_images
from ..io.images import load_image, save_image
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
    contents, styles = ([center_square(load_image(path), args.size) for path in paths] for paths in files)
    model = open_model(args)
    total = len(styles) * (args.refine or 1)
    with progress_bar(total, unit="step" if args.refine else "style") as bar:
        sheet = comparison_sheet(model, contents, styles, refine_steps=args.refine, progress=StepCounter(bar, total))
    save_image(sheet, args.output)
    report(f"{args.output}  {sheet.shape[-1]}x{sheet.shape[-2]}  {time.monotonic() - started:.1f} s", args.output)
    return 0
