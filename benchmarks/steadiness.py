"""What steadying a clip gains and costs: warp error beside style distance and patch distance.

    python -m benchmarks.steadiness [FOLDER_OR_CLIP...] [--still P] [--style S] [--size 256] [--frames 10]

A still is panned, zoomed and rotated, so that the motion is known to a fraction of a pixel; folders of frames and
clips are measured along Farneback's flow, which the smoothing does not use. The warp error is the mean absolute
difference, in 1/255, between a frame and the previous one moved along that motion (`flicker.flicker`). Its share is
what steadying leaves of the error of frame by frame, both above that of the clip itself. Style distance (channel
statistics, relu1_1 to relu5_1) and patch distance (relu4_1) are to the style in the built-in VGG-19; blurring would
raise both. The rows of cosine attention are those of the same weights with the attention of the published video model,
whose weights are nearly equal and so change little from frame to frame: 1 + cosine instead of the softmax.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from adaattn_core import encode_style, load_image, load_model, load_vgg
from adaattn_core.commands.shared.options import STYLE_SIDE
from adaattn_core.evaluation.metrics import channel_statistics, patch_distance, statistics_distance
from adaattn_core.inference.temporal import ClipOptions, ClipStylizer
from adaattn_core.models.encoder import LEVELS
from adaattn_core.models.model import StyleTransferModel
from adaattn_core.ops.resize import resize_image
from benchmarks.flicker import ROOT, STYLE, farneback_flow, flicker, frames, sharpness

STILL = ROOT / "examples" / "ramparts.jpg"
STEADY = (0.7, 0.9)
MEASURED = 3
"""Frames at the end of a clip whose distances to the style are measured."""
PATCH_LEVEL = "relu4_1"
MOTIONS = {
    "pan": (0.0, 1.0, (2.3, 0.7)),
    "zoom": (0.0, 0.985, (0.0, 0.0)),
    "rotation": (0.8, 1.0, (0.0, 0.0)),
}
"""From a frame to the next: degrees, scale and pixels (x, y) of the motion of the window over the still."""


class Moving(NamedTuple):
    """A clip and its motion. flows: from each frame but the first to the one before it, (1, 2, H, W) in pixels."""

    name: str
    contents: list[Tensor]
    flows: list[Tensor]


class Row(NamedTuple):
    """One line of the table; distances are means over the measured frames."""

    error: float
    style: float
    patch: float
    sharpness: float


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.steadiness", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("clips", nargs="*", type=Path, metavar="FOLDER_OR_CLIP", help="a video, or a folder of frames")
    parser.add_argument("--still", type=Path, default=STILL, metavar="P", help="moved by script (default: ramparts)")
    parser.add_argument("--style", type=Path, default=STYLE, metavar="S")
    parser.add_argument("--size", type=int, default=256, metavar="PX", help="short side (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=10, metavar="N", help="of each clip (default: %(default)s)")
    args = parser.parse_args(argv)
    if args.frames < 2:
        parser.error(f"--frames is {args.frames}; 2 are needed, because steadiness compares frames")
    style = resize_image(load_image(args.style), short_side=STYLE_SIDE)
    judge = Judge(style)
    print("| clip | steady | warp error | share | style | patch | sharpness |\n|---|---|---|---|---|---|---|")
    for moving in clips(args):
        for line in table(moving, style, judge):
            print(line, flush=True)
    return 0


def clips(args: argparse.Namespace) -> Iterator[Moving]:
    still = load_image(args.still)
    for name in MOTIONS:
        yield moved(still, name, args.size, args.frames)
    for path in args.clips:
        contents = [resize_image(frame, short_side=args.size) for frame in islice(frames(path), args.frames)]
        pairs = zip(contents[1:], contents[:-1], strict=True)
        yield Moving(path.stem, contents, [farneback_flow(*pair) for pair in pairs])


def moved(still: Tensor, name: str, side: int, count: int) -> Moving:
    """A window over a still, (1, 3, H, W), that moves by one of MOTIONS from frame to frame."""
    wide = resize_image(still, short_side=round(1.3 * side))
    height, width = side, round(side * 1.3)
    step = affine(*MOTIONS[name])
    place, contents = torch.eye(3), []
    offset = torch.tensor([-(count - 1) / 2 * x for x in MOTIONS[name][2]])  # the pan is centred on the still
    place[:2, 2] = offset
    for _ in range(count):
        contents.append(window(wide, place, (height, width)))
        place = place @ step
    grid = positions(height, width)
    flow = (apply(step, grid) - grid).permute(2, 0, 1)[None]
    return Moving(name, contents, [flow] * (count - 1))


def affine(degrees: float, scale: float, shift: tuple[float, float]) -> Tensor:
    """(3, 3): positions of a frame, (x, y, 1) from its centre, to those of the frame before."""
    cosine, sine = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    return torch.tensor([[cosine, -sine, shift[0]], [sine, cosine, shift[1]], [0.0, 0.0, 1.0]])


def positions(height: int, width: int) -> Tensor:
    """(H, W, 2): x and y of every pixel from the centre."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([columns - (width - 1) / 2, rows - (height - 1) / 2], dim=-1).float()


def apply(motion: Tensor, places: Tensor) -> Tensor:
    """(H, W, 2) places after a motion (3, 3)."""
    return places @ motion[:2, :2].T + motion[:2, 2]


def window(picture: Tensor, place: Tensor, size: tuple[int, int]) -> Tensor:
    """(1, 3, *size): the part of a picture around its centre, moved; bicubic."""
    height, width = picture.shape[-2:]
    grid = apply(place, positions(*size)) * 2 / torch.tensor([width, height])
    return functional.grid_sample(picture, grid[None], mode="bicubic", align_corners=False).clamp(0, 1)


class Judge:
    """Distances of pictures to a style, in the built-in VGG-19."""

    def __init__(self, style: Tensor) -> None:
        self.vgg = load_vgg(normalized=True).eval()
        with torch.inference_mode():
            features = self.vgg(style)
        self.patches, self.statistics = features[PATCH_LEVEL], channel_statistics(features, LEVELS)

    @torch.inference_mode()
    def distances(self, pictures: Sequence[Tensor]) -> tuple[float, float]:
        """Mean style distance and mean patch distance."""
        style = patch = 0.0
        for picture in pictures:
            features = self.vgg(picture)
            style += float(statistics_distance(channel_statistics(features, LEVELS), self.statistics))
            patch += float(patch_distance(features[PATCH_LEVEL], self.patches))
        return style / len(pictures), patch / len(pictures)


def table(moving: Moving, style: Tensor, judge: Judge) -> Iterator[str]:
    """Lines for the clip itself, frame by frame, each of STEADY, and the first of these with cosine attention."""
    clip_error = flicker(moving.contents, moving.contents, moving.flows)
    yield f"| {moving.name} | the clip itself | {clip_error:.2f} | | | | |"
    model = load_model("compact")
    plain = None
    for kind, layout, steadies in (("", model, STEADY), ("cosine, ", with_cosine(model), STEADY[:1])):
        encoded = [encode_style(layout, style)]
        painted = [ClipStylizer(layout, encoded).paint(one) for one in moving.contents]
        row = measured(painted, moving, judge)
        plain = plain or row
        yield line(moving.name, f"{kind}frame by frame", row, plain, clip_error)
        for steady in steadies:
            stylizer = ClipStylizer(layout, encoded, ClipOptions(steady=steady))
            results = [stylizer.smooth(*pair) for pair in zip(moving.contents, painted, strict=True)]
            yield line(moving.name, f"{kind}{steady:g}", measured(results, moving, judge), plain, clip_error)


def with_cosine(model: StyleTransferModel) -> StyleTransferModel:
    """The same weights with the attention of the published video model."""
    other = StyleTransferModel(replace(model.config, similarity="cosine"))
    other.load_state_dict(model.state_dict())
    return other.eval()


def measured(results: Sequence[Tensor], moving: Moving, judge: Judge) -> Row:
    distances = judge.distances(results[-MEASURED:])
    return Row(flicker(results, moving.contents, moving.flows), *distances, sum(map(sharpness, results)))


def line(clip: str, name: str, row: Row, plain: Row, clip_error: float) -> str:
    """A line of the table; distances also relative to those of frame by frame."""
    share = (row.error - clip_error) / max(plain.error - clip_error, 1e-6)
    changes = [100 * (mine / theirs - 1) for mine, theirs in ((row.style, plain.style), (row.patch, plain.patch))]
    style, patch = (f"{value:.3f} ({by:+.1f} %)" for value, by in zip((row.style, row.patch), changes, strict=True))
    numbers = f"{row.error:.2f} | {share:.0%} | {style} | {patch} | {row.sharpness / plain.sharpness:.2f}"
    return f"| {clip} | {name} | {numbers} |"


if __name__ == "__main__":
    sys.exit(main())
