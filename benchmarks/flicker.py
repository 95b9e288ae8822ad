"""How much a painted clip flickers, and how sharp it is, for several values of --steady.

    python -m benchmarks.flicker FOLDER_OR_CLIP... [--style S] [--size 288] [--frames 24] [--steady 0 .5 .7 .8 .9]

Every frame is painted by the built-in model. Flicker is the warping error: the mean absolute difference, in 1/255,
between a frame and the one before moved along the optical flow of the contents, over the places where the contents
agree to .03. It is told for the flow that `Steady` follows and for Farneback's, which it does not. Sharpness is the
mean absolute Laplacian, as a share of that of the frames painted by themselves.
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
from adaattn_core.commands.options import STYLE_SIDE
from adaattn_core.inference.temporal import TemporalSmoother, grey_bytes, optical_flow, warp
from adaattn_core.io.image_files import find_images
from adaattn_core.io.video_reader import open_clip, video_package
from adaattn_core.ops.resize import resize_image

ROOT = Path(__file__).parents[1]
STYLE = ROOT / "examples" / "great_wave.jpg"
AGREE = 0.03
"""Difference of the contents up to which a place counts."""
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
        parser.error(f"--frames is {args.frames}; 2 are needed, to compare one with the other")
    model, style = load_model(), resize_image(load_image(args.style), short_side=STYLE_SIDE)
    print("| clip | steady | flicker | along Farneback's flow | sharpness |\n|---|---|---|---|---|")
    for path in args.clips:
        contents = [resize_image(one, short_side=args.size) for one in islice(frames(path), args.frames)]
        for row in measured(contents, painted(model, contents, style), args.steady):
            print(f"| {path.stem} | {row}", flush=True)
    return 0


def frames(path: Path) -> Iterable[Tensor]:
    """Pictures of a folder by name, or of a clip; each (1, 3, H, W) in [0, 1]."""
    if path.is_dir():
        yield from (load_image(one) for one in find_images([path]))
        return
    with open_clip(path) as clip:
        yield from (clip.image(frame) for frame in clip.frames())


def painted(model: StyleTransferModel, contents: Sequence[Tensor], style: Tensor) -> list[Tensor]:
    encoded = encode_style(model, style)
    return [stylize(model, content, encoded) for content in contents]


def measured(contents: Sequence[Tensor], paintings: Sequence[Tensor], steady: Iterable[float]) -> Iterable[str]:
    """A line for each value; the first one for the contents themselves."""
    pairs = list(zip(contents[1:], contents[:-1], strict=True))
    own, other = ([flow(*pair) for pair in pairs] for flow in (optical_flow, farneback_flow))
    yield f"the clip itself | {flicker(contents, contents, own):.2f} | {flicker(contents, contents, other):.2f} | |"
    plain = sum(map(sharpness, paintings))
    for value in steady:
        follow = TemporalSmoother(value)
        results = [follow(content, one) for content, one in zip(contents, paintings, strict=True)]
        share = sum(map(sharpness, results)) / plain
        found = [f"{flicker(results, contents, flows):.2f}" for flows in (own, other)]
        yield f"{value:g} | {found[0]} | {found[1]} | {share:.2f} |"


def flicker(results: Sequence[Tensor], contents: Sequence[Tensor], flows: Sequence[Tensor]) -> float:
    """The warping error in 1/255. `flows` lead from each content but the first to the one before."""
    errors = []
    for number, flow in enumerate(flows, 1):
        moved, inside = warp(torch.cat([contents[number - 1], results[number - 1]], dim=1), flow)
        agrees = ((contents[number] - moved[:, :3]).abs().mean(dim=1, keepdim=True) < AGREE) * inside
        error = (results[number] - moved[:, 3:]).abs().mean(dim=1, keepdim=True)
        errors.append(float((error * agrees).sum() / agrees.sum().clamp_min(1)))
    return 255 * sum(errors) / len(errors)


def sharpness(image: Tensor) -> float:
    """Mean absolute Laplacian of the grey picture."""
    kernel = image.new_tensor([[0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]
    return float(functional.conv2d(image.mean(dim=1, keepdim=True), kernel).abs().mean())


def farneback_flow(present: Tensor, before: Tensor) -> Tensor:
    """As `optical_flow`, by another algorithm."""
    size = present.shape[-2], present.shape[-1]
    pictures = grey_bytes(present, size), grey_bytes(before, size)
    found = video_package("cv2").calcOpticalFlowFarneback(*pictures, None, 0.5, 5, 15, 5, 7, 1.5, 0)
    return rearrange(torch.from_numpy(found), "h w xy -> 1 xy h w")


if __name__ == "__main__":
    sys.exit(main())
