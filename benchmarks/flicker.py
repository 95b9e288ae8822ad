"""Flicker and sharpness of a stylised clip for several values of --steady.

    python -m benchmarks.flicker FOLDER_OR_CLIP... [--style S] [--size 288] [--frames 24] [--steady 0 .5 .7 .8 .9]

The built-in model stylises every frame. Flicker is the warping error: the mean absolute difference, in 1/255, between a
frame and the previous one warped along the optical flow of the contents, over the positions where the contents agree to
.03. It is given for the flow that `TemporalSmoother` uses and for Farneback's, which it does not use. Sharpness is the
mean absolute Laplacian relative to that of independently stylised frames.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from adaattn_core import StyleTransferModel, encode_style, load_image, load_model, stylize
from adaattn_core.commands.shared.options import STYLE_SIDE
from adaattn_core.inference.temporal import TemporalSmoother, grey_bytes, optical_flow, warp
from adaattn_core.io.image_files import find_images
from adaattn_core.io.video_reader import open_clip, video_package
from adaattn_core.ops.resize import resize_image

ROOT = Path(__file__).parents[1]
STYLE = ROOT / "examples" / "great_wave.jpg"
MAX_CONTENT_DIFFERENCE = 0.03
"""Difference of the warped contents up to which a position counts."""
STEADY = (0.0, 0.5, 0.7, 0.8, 0.9)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.flicker", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("clips", nargs="+", type=Path, metavar="FOLDER_OR_CLIP", help="a video, or a folder of frames")
    parser.add_argument("--style", type=Path, default=STYLE, metavar="S")
    parser.add_argument("--size", type=int, default=288, metavar="PX", help="short side (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=24, metavar="N", help="of each clip (default: %(default)s)")
    parser.add_argument("--steady", type=float, nargs="+", default=STEADY, metavar="X")
    args = parser.parse_args(argv)
    if args.frames < 2:
        parser.error(f"--frames is {args.frames}; 2 are needed, because flicker compares frames")
    model, style = load_model("compact"), resize_image(load_image(args.style), short_side=STYLE_SIDE)
    print("| clip | steady | flicker | along Farneback's flow | sharpness |\n|---|---|---|---|---|")
    for path in args.clips:
        contents = [resize_image(frame, short_side=args.size) for frame in islice(frames(path), args.frames)]
        for row in measure(contents, stylize_all(model, contents, style), args.steady):
            print(f"| {path.stem} | {row}", flush=True)
    return 0


def frames(path: Path) -> Iterable[Tensor]:
    """The pictures of a folder in the order of their names, or the frames of a clip; each (1, 3, H, W) in [0, 1]."""
    if path.is_dir():
        yield from (load_image(file) for file in find_images([path]))
        return
    with open_clip(path) as clip:
        yield from (clip.image(frame) for frame in clip.frames())


def stylize_all(model: StyleTransferModel, contents: Sequence[Tensor], style: Tensor) -> list[Tensor]:
    encoded = encode_style(model, style)
    return [stylize(model, content, encoded) for content in contents]


def measure(contents: Sequence[Tensor], stylized: Sequence[Tensor], steady: Iterable[float]) -> Iterable[str]:
    """A line of the table for the contents themselves, then one for each value of --steady."""
    pairs = list(zip(contents[1:], contents[:-1], strict=True))
    used_flows, other_flows = ([flow(*pair) for pair in pairs] for flow in (optical_flow, farneback_flow))
    errors = [f"{flicker(contents, contents, flows):.2f}" for flows in (used_flows, other_flows)]
    yield f"the clip itself | {errors[0]} | {errors[1]} | |"
    unsmoothed = sum(map(sharpness, stylized))
    for value in steady:
        smooth = TemporalSmoother(value)
        results = [smooth(content, frame) for content, frame in zip(contents, stylized, strict=True)]
        relative_sharpness = sum(map(sharpness, results)) / unsmoothed
        errors = [f"{flicker(results, contents, flows):.2f}" for flows in (used_flows, other_flows)]
        yield f"{value:g} | {errors[0]} | {errors[1]} | {relative_sharpness:.2f} |"


def flicker(results: Sequence[Tensor], contents: Sequence[Tensor], flows: Sequence[Tensor]) -> float:
    """The warping error in 1/255; `flows` map each content except the first to the previous one."""
    errors = []
    for number, flow in enumerate(flows, 1):
        warped, inside = warp(torch.cat([contents[number - 1], results[number - 1]], dim=1), flow)
        valid = ((contents[number] - warped[:, :3]).abs().mean(dim=1, keepdim=True) < MAX_CONTENT_DIFFERENCE) * inside
        error = (results[number] - warped[:, 3:]).abs().mean(dim=1, keepdim=True)
        errors.append(float((error * valid).sum() / valid.sum().clamp_min(1)))
    return 255 * sum(errors) / len(errors)


def sharpness(image: Tensor) -> float:
    """Mean absolute Laplacian of the grey picture."""
    kernel = image.new_tensor([[0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]
    return float(functional.conv2d(image.mean(dim=1, keepdim=True), kernel).abs().mean())


def farneback_flow(present: Tensor, before: Tensor) -> Tensor:
    """Optical flow like that of `optical_flow`, by Farneback's algorithm."""
    size = present.shape[-2], present.shape[-1]
    pictures = grey_bytes(present, size), grey_bytes(before, size)
    flow = video_package("cv2").calcOpticalFlowFarneback(*pictures, None, 0.5, 5, 15, 5, 7, 1.5, 0)
    return rearrange(torch.from_numpy(flow), "h w xy -> 1 xy h w")


if __name__ == "__main__":
    sys.exit(main())
