"""Show where each point of a picture looks in a style, as a page for any browser."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..errors import OutputError
from ..inference.stages import extract_features
from ..io.files import atomic_path, is_stream
from ..io.image_files import find_images
from ..io.images import load_over_white
from ..ops.resize import resize_image
from ..runtime.progress import StepCounter, progress_bar
from ..viewer.view_data import view_data
from ..viewer.view_page import view_page
from .shared.idle_options import Idle, remark_idle
from .shared.options import (
    add_model_options,
    add_size_options,
    find_styles,
    open_model,
    positive_number,
)
from .shared.paths import check_folder, check_no_input_among, input_path, output_path, report

EXAMPLES = """\
example:
  adaattn attention photo.jpg --style painting.jpg -o view.html
Open view.html in a browser: it needs no other file and no connection.
"""
SUFFIXES = (".html", ".htm")
IDLE = (Idle("--precision", lambda args: True, "on attention, which is always computed in float32"),)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument("content", type=input_path, metavar="CONTENT", help="content picture")
    parser.add_argument("--style", required=True, type=input_path, metavar="S", help="style picture")
    parser.add_argument("-o", "--output", required=True, type=output_path, metavar="VIEW", help="page to write: .html")
    parser.add_argument(
        "--temperature", type=positive_number, default=1.0, metavar="X",
        help="as in adaattn stylize; 1 shows the attention that paints (default: 1)",
    )  # fmt: skip
    add_size_options(parser.add_argument_group("sizes"), "content")
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    started = time.monotonic()
    _check_page(args.output)
    content, style = _only_picture(args.content), find_styles([args.style], allow_many=False)[0].path
    check_no_input_among([args.output], [content, style])
    remark_idle(IDLE, args)
    pictures = _read(content, args.size, reduce_only=False), _read(style, args.style_size, reduce_only=True)
    page = _page(args, pictures, (content.name, style.name))
    with atomic_path(args.output) as temporary:
        temporary.write_text(page, encoding="utf-8")
    report(f"{args.output}  {len(page) / 1e6:.1f} MB  {time.monotonic() - started:.1f} s", args.output)
    return 0


def _page(args: argparse.Namespace, pictures: tuple[Tensor, Tensor], titles: tuple[str, str]) -> str:
    """HTML of the page with the attention of the first picture over the second."""
    model = open_model(args)
    steps = len(model.config.levels)
    with torch.no_grad(), progress_bar(steps, unit="level") as bar:
        device = next(model.parameters()).device
        content, style = (
            extract_features(model.encoder, picture.to(device), model.config.levels, role=role)
            for picture, role in zip(pictures, ("content", "style"), strict=True)
        )
        data = view_data(
            model.fusion,
            content,
            style,
            model.config.encoder_convs,
            temperature=args.temperature,
            titles=titles,
            progress=StepCounter(bar, steps),
        )
    return view_page(data, f"Attention: {titles[0]} in the style of {titles[1]}")


def _check_page(path: str) -> None:
    """Raises an OutputError if a page cannot be written to `path`."""
    if is_stream(path):
        return
    if Path(path).suffix.lower() not in SUFFIXES:
        raise OutputError(f"{path} does not end in .html; the output is a page for a browser. Name it view.html.")
    check_folder(Path(path).parent)


def _only_picture(pattern: str) -> Path:
    """The picture that CONTENT names; a ValueError if it names several."""
    paths: Sequence[Path] = find_images([pattern])
    if len(paths) > 1:
        raise ValueError(f"{pattern} holds {len(paths)} pictures; one content is needed. Name the picture.")
    return paths[0]


def _read(path: Path, short_side: int, *, reduce_only: bool) -> Tensor:
    """A picture, resized to a short side; 0 keeps its size."""
    picture = load_over_white(path)
    if not short_side or (reduce_only and min(picture.shape[-2:]) <= short_side):
        return picture
    return resize_image(picture, short_side=short_side)
