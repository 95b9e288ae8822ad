"""Repaint a clip in the style of pictures, its sound kept."""

from __future__ import annotations

import argparse
import time
from contextlib import closing
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoints.model_file import find_model
from ..inference.stylize import stylize
from ..inference.temporal import DEFAULT_STEADY, TemporalSmoother
from ..io.video_reader import Clip, Frame, open_clip
from ..io.video_writer import DEFAULT_CRF, LARGEST_CRF, Writer, check_clip_output, open_writer
from ..ops.resize import resize_image
from ..runtime.device import pick_device
from ..runtime.prefetch import PREFETCH, prefetch_map
from ..runtime.progress import progress_bar
from .options import (
    add_memory_option,
    add_model_options,
    add_paint_options,
    add_size_options,
    add_style_mask_option,
    check_folder,
    check_no_input_among,
    open_model,
    positive,
    unit,
    whole,
)
from .styles import Styles, check_shares, find_styles, style_masks

EXAMPLES = """\
examples:
  adaattn video clip.mp4 --style painting.jpg -o painted.mp4
  adaattn video clip.mp4 --style painting.jpg -o look.mp4 --size 256 --seconds 2         try out a look
  adaattn video clip.mov --style a.jpg --style b.jpg --style-weights .7,.3 -o mixed.webm
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument("content", metavar="IN", help="clip to repaint: mp4, mov, mkv, webm, gif, ...")
    parser.add_argument(
        "--style", action="append", required=True, metavar="S",
        help="a picture to take the style from; several are mixed",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", required=True, metavar="OUT",
        help="clip to write: .mp4, .mov or .mkv (H.264), or .webm (VP9)",
    )  # fmt: skip
    _add_clip_options(parser.add_argument_group("clip"))
    add_paint_options(parser.add_argument_group("painting"))
    sizes = parser.add_argument_group("sizes and regions")
    add_size_options(sizes, "frames")
    add_style_mask_option(sizes)
    add_model_options(parser)
    add_memory_option(parser, "frames are then not read ahead")


def _add_clip_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--steady", type=unit, default=DEFAULT_STEADY, metavar="X",
        help="how far places that stand still or can be followed keep the look of the frame before, which takes out "
        "flicker; 0 paints every frame by itself (default: %(default)s)",
    )  # fmt: skip
    group.add_argument("--seconds", type=positive, metavar="X", help="only the first X seconds, to try out a look")
    group.add_argument(
        "--crf", type=crf, default=DEFAULT_CRF, metavar="N",
        help=f"0 to {LARGEST_CRF}: lower is better and larger (default: %(default)s)",
    )  # fmt: skip


def crf(text: str) -> int:
    value = whole(text)
    if not 0 <= value <= LARGEST_CRF:
        raise argparse.ArgumentTypeError(f"{text} is out of range; it must be between 0 and {LARGEST_CRF}")
    return value


def run(args: argparse.Namespace) -> int:
    started = time.monotonic()
    styles = plan(args)
    device = pick_device(args.device)
    with open_clip(args.content) as clip:
        styles.read()
        with open_writer(args.output, clip, crf=args.crf, seconds=args.seconds) as writer:
            _paint(args, clip, VideoJob(args, device, clip, styles, writer))
    size, frames = f"{writer.size[1]}x{writer.size[0]}", f"{writer.frames} frame{'s' if writer.frames > 1 else ''}"
    print(f"{args.output}  {size}, {frames}, {time.monotonic() - started:.1f} s")
    return 0


def plan(args: argparse.Namespace) -> Styles:
    """The styles, with all paths and options checked.

    Raises:
        ImageError, OutputError: a path that will not do.
        ValueError: options that do not fit together.
    """
    paths = find_styles(args.style, alone=False)
    masks = style_masks(args, paths)
    check_shares(args, paths)
    output = Path(args.output)
    check_clip_output(output)
    check_folder(output.parent)
    check_no_input_among([output], [args.content, *paths, *masks], "files")
    find_model(args.model)
    return Styles(paths, masks, args)


def _paint(args: argparse.Namespace, clip: Clip, painter: VideoJob) -> None:
    ahead = 0 if args.max_memory_gb else PREFETCH
    frames = prefetch_map(clip.frames(args.seconds), painter.read, painter.paint, painter.write, ahead)
    # The bar outside: its threads must have ended before the files are closed.
    with progress_bar(clip.count(args.seconds), unit="frame") as bar, closing(frames):
        for _ in frames:
            bar.update()


class VideoJob:
    """Reads, paints and writes one frame after the other; each step in a thread of its own, see `prefetch_map`."""

    def __init__(
        self, args: argparse.Namespace, device: torch.device, clip: Clip, styles: Styles, writer: Writer
    ) -> None:
        self.args, self.clip, self.styles, self.writer = args, clip, styles, writer
        self.steady = TemporalSmoother(args.steady)
        self.model = open_model(args, device)

    def read(self, frame: Frame) -> Tensor:
        """The content, (1, 3, H, W)."""
        image = self.clip.image(frame)
        return resize_image(image, short_side=self.args.size) if self.args.size else image

    def paint(self, frame: Frame, content: Tensor) -> tuple[Tensor, Tensor]:
        """The content, and the same in the styles."""
        args = self.args
        painted = stylize(
            self.model, content, self.styles.encoded(self.model), style_weights=args.style_weights,
            strength=args.strength, temperature=args.temperature, keep_color=args.keep_color,
            max_memory_gb=args.max_memory_gb,
        )  # fmt: skip
        return content, painted

    def write(self, frame: Frame, made: tuple[Tensor, Tensor]) -> None:
        self.writer.write(self.steady(*made), frame)
