"""Repaint a video in the style of pictures and keep its sound."""

from __future__ import annotations

import argparse
import time
from contextlib import closing
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoints.model_file import COMPACT, find_model
from ..inference.temporal import DEFAULT_STEADY, ClipOptions, ClipStylizer
from ..io.files import is_stream
from ..io.video_reader import Clip, Frame, open_clip
from ..io.video_writer import DEFAULT_CRF, LARGEST_CRF, Writer, check_clip_output, open_writer
from ..ops.resize import resize_image
from ..runtime.device import pick_device
from ..runtime.prefetch import PREFETCH, prefetch_map
from ..runtime.progress import progress_bar
from .shared.claims import claimed
from .shared.idle_options import PAINTING, remark_idle
from .shared.options import (
    Styles,
    add_memory_option,
    add_model_options,
    add_size_options,
    add_style_mask_option,
    add_stylize_options,
    check_style_weights,
    find_styles,
    fraction,
    integer,
    open_model,
    positive_number,
    style_masks,
)
from .shared.paths import check_folder, check_no_input_among, input_path, output_path, report

EXAMPLES = """\
examples:
  adaattn video clip.mp4 --style painting.jpg -o painted.mp4
  adaattn video clip.mov --style a.jpg --style b.jpg --style-weights .7,.3 -o mixed.webm
A small and short preview:
  adaattn video clip.mp4 --style painting.jpg -o preview.mp4 --size 256 --seconds 2
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument(
        "content",
        type=input_path,
        metavar="IN",
        help="video to repaint: mp4, mov, mkv, webm, gif, ...; - is standard input",
    )
    parser.add_argument(
        "--style", action="append", required=True, type=input_path, metavar="S",
        help="style picture; give the option several times to mix styles",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", required=True, type=output_path, metavar="OUT",
        help="video to write: .mp4, .mov or .mkv (H.264), or .webm (VP9); - is standard output, as .mkv",
    )  # fmt: skip
    _add_clip_options(parser.add_argument_group("video"))
    add_stylize_options(parser.add_argument_group("style transfer"))
    sizes = parser.add_argument_group("sizes and masks")
    add_size_options(sizes, "frames")
    parser.set_defaults(stroke_size=0.0)  # which `Styles` reads: frames are small, and painted in one pass
    add_style_mask_option(sizes)
    add_model_options(parser, default=COMPACT)
    add_memory_option(parser, "a limit turns off reading frames ahead")


def _add_clip_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--steady", type=fraction, default=DEFAULT_STEADY, metavar="X",
        help="temporal smoothing against flicker: the weight of the previous result, moved along the optical flow, "
        "where both frames show the same thing; 0 repaints every frame independently (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--seconds", type=positive_number, metavar="X", help="repaint only the first X seconds, as a preview"
    )
    group.add_argument(
        "--crf", type=crf, default=DEFAULT_CRF, metavar="N",
        help=f"quality of the video encoder, 0 to {LARGEST_CRF}: lower values give better quality and a larger file "
        "(default: %(default)s)",
    )  # fmt: skip


def crf(text: str) -> int:
    """The type of the value of --crf."""
    value = integer(text)
    if not 0 <= value <= LARGEST_CRF:
        raise argparse.ArgumentTypeError(f"{text} is out of range; it must be between 0 and {LARGEST_CRF}")
    return value


def run(args: argparse.Namespace) -> int:
    started = time.monotonic()
    styles = plan(args)
    device = pick_device(args.device)
    remark_idle(PAINTING, args)
    output = Path(args.output)
    with open_clip(args.content) as clip, claimed(output.parent, [] if is_stream(output) else [output]):
        styles.read()
        with open_writer(args.output, clip, crf=args.crf, seconds=args.seconds) as writer:
            job = VideoJob(args, device, clip, styles, writer)
            _stylize_frames(job)
    job.stylizer.remark_cuts()
    size, frames = f"{writer.size[1]}x{writer.size[0]}", f"{writer.frames} frame{'s' if writer.frames > 1 else ''}"
    report(f"{args.output}  {size}, {frames}, {time.monotonic() - started:.1f} s", args.output)
    return 0


def plan(args: argparse.Namespace) -> Styles:
    """The styles, with all paths and options checked.

    Raises:
        ImageError: an input does not exist, or the output has an unknown suffix.
        OutputError: the output cannot be written.
        ValueError: the options do not fit together.
    """
    paths = [style.path for style in find_styles(args.style, allow_many=False)]
    masks = style_masks(args, paths)
    check_style_weights(args, paths)
    output = Path(args.output)
    check_clip_output(output)
    if not is_stream(output):
        check_folder(output.parent)
    check_no_input_among([output], [args.content, *paths, *masks], "files")
    find_model(args.model)
    return Styles(paths, masks, args)


def _stylize_frames(job: VideoJob) -> None:
    """Reads, stylizes and writes all frames, with a progress bar."""
    seconds = job.args.seconds
    ahead = 0 if job.args.max_memory_gb else PREFETCH  # a memory limit leaves no room for frames read ahead
    frames = prefetch_map(job.clip.frames(seconds), job.read, job.stylize, job.write, ahead)
    # `closing` is the inner context: its threads have to end before the caller closes the files.
    with progress_bar(job.clip.count(seconds), unit="frame", piped=True) as bar, closing(frames):
        for _ in frames:
            bar.update()


class VideoJob:
    """Reads, stylizes and writes frames one after another; `prefetch_map` runs each step in its own thread."""

    def __init__(
        self, args: argparse.Namespace, device: torch.device, clip: Clip, styles: Styles, writer: Writer
    ) -> None:
        self.args, self.clip, self.writer = args, clip, writer
        options = ClipOptions(args.style_weights, args.strength, args.temperature, args.keep_color, args.steady)
        model = open_model(args, device)
        self.stylizer = ClipStylizer(model, styles.encoded(model), options)

    def read(self, frame: Frame) -> Tensor:
        """The content, (1, 3, H, W)."""
        image = self.clip.image(frame)
        return resize_image(image, short_side=self.args.size) if self.args.size else image

    def stylize(self, frame: Frame, content: Tensor) -> tuple[Tensor, Tensor]:
        """The content and the stylized content."""
        return content, self.stylizer.paint(content, self.args.max_memory_gb)

    def write(self, frame: Frame, pictures: tuple[Tensor, Tensor]) -> None:
        """Smooths the stylized frame over time and encodes it."""
        self.writer.write(self.stylizer.smooth(*pictures), frame)
