"""Repaint pictures in the style of others."""

from __future__ import annotations

import argparse
import itertools
import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from ..checkpoints.model_file import find_model
from ..errors import ImageError, OutputError
from ..inference.stylize import stylize
from ..io.image_files import find_images
from ..io.images import WRITE_FORMATS, load_alpha, load_image, load_mask, save_image
from ..models.model import StyleTransferModel
from ..ops.masks import fit_mask
from ..ops.resize import resize_image
from ..runtime.distributed import DistributedContext
from ..runtime.memory import is_out_of_memory
from ..runtime.prefetch import PREFETCH, prefetch_map
from ..runtime.progress import progress_bar
from .errors import explain
from .options import (
    NO_MASK,
    add_memory_option,
    add_model_options,
    add_paint_options,
    add_size_options,
    add_style_mask_option,
    check_no_input_among,
    check_output,
    make_folder,
    open_model,
)
from .styles import Styles, check_shares, find_styles, style_masks

logger = logging.getLogger(__name__)

EXAMPLES = """\
examples:
  adaattn stylize photo.jpg --style painting.jpg -o result.png
  adaattn stylize holiday/ --style painting.jpg -o results/ --resume         go on where a run was stopped
  torchrun --nproc-per-node 4 -m adaattn_core stylize holiday/ --style painting.jpg -o results/     in 4 processes
  adaattn stylize photo.jpg --style a.jpg --style b.jpg --style-weights .7,.3 -o mixed.png
  adaattn stylize photo.jpg --style "paintings/*.jpg" -o results/      in each style, as photo__painting.png
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument("content", nargs="+", metavar="CONTENT", help="pictures, folders or globs to repaint")
    parser.add_argument(
        "--style", action="append", required=True, metavar="S",
        help="a picture to take the style from; several are mixed; a folder or glob alone: one result for each",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", required=True, metavar="OUT",
        help="picture to write, or a folder: results are named after their contents, as PNG",
    )  # fmt: skip
    add_paint_options(parser.add_argument_group("painting"))
    _add_region_options(parser.add_argument_group("sizes and regions"))
    add_model_options(parser)
    add_memory_option(parser, "files are then not read ahead")
    parser.add_argument(
        "--resume", action="store_true", help="leave out results that are there already: to go on with a stopped run"
    )


def _add_region_options(group: argparse._ArgumentGroup) -> None:
    add_size_options(group, "contents")
    group.add_argument("--content-mask", metavar="M", help="picture, white where to repaint")
    add_style_mask_option(group)


class StyleMix(NamedTuple):
    """Results that share their styles, which are mixed."""

    styles: list[Path]
    masks: list[str]
    results: list[tuple[Path, Path]]
    """content, output"""


class Job(NamedTuple):
    """One picture to make."""

    content: Path
    output: Path
    styles: Styles


class Failure(NamedTuple):
    """Why there is no picture; one line."""

    reason: str


def run(args: argparse.Namespace) -> int:
    started = time.monotonic()
    ranks, groups = DistributedContext.from_env(), plan(args)
    share = share_of(groups, ranks)
    rest = share_of(groups, ranks, skip_existing=args.resume)
    total, there = _count(rest), _count(share) - _count(rest)
    painter = StylizeJob(args, ranks, alone=_count(groups) == 1)
    jobs = (
        Job(*result, styles)
        for group in rest
        for styles in [Styles(group.styles, group.masks, args)]
        for result in group.results
    )
    ahead = 0 if args.max_memory_gb else PREFETCH  # a limit leaves no room for pictures that wait
    written: list[str | Failure] = []
    with progress_bar(total, unit="picture", enabled=None if total > 1 and ranks.is_main_process else False) as bar:
        for _, one in prefetch_map(jobs, painter.read, painter.paint, painter.write, ahead):
            written.append(one)
            bar.update()
    who = f"process {ranks.rank} of {ranks.world}: " if ranks.world > 1 else ""
    failures = [one.reason for one in written if isinstance(one, Failure)]
    if failures:
        count = f"{len(failures)} of {total} pictures failed"
        raise ImageError(f"{who}{count}, the others are done. The first: {failures[0]}")
    if painter.alone and written:
        what = f"{rest[0].results[0][1]}  {written[0]}"
    else:
        what = f"{total} pictures in {args.output}" + (f", beside {there} that were there" if there else "")
    print(f"{who}{what}  {time.monotonic() - started:.1f} s")
    return 0


def _count(groups: Sequence[StyleMix]) -> int:
    return sum(len(group.results) for group in groups)


def share_of(groups: Sequence[StyleMix], ranks: DistributedContext, skip_existing: bool = False) -> list[StyleMix]:
    """The results that this process makes, of those that all processes make: every `world`-th.

    Which are there already counts only after that: processes that looked at different times would disagree.
    """
    numbers = itertools.count()
    shares = [
        group._replace(results=[one for one in group.results if next(numbers) % ranks.world == ranks.rank])
        for group in groups
    ]
    if skip_existing:
        shares = [group._replace(results=[one for one in group.results if not one[1].exists()]) for group in shares]
    return [group for group in shares if group.results]


class StylizeJob:
    """Reads, paints and writes one picture after the other; each step in a thread of its own, see `prefetch_map`.

    The model is loaded after the first pictures: a wrong one is told at once.

    Args:
        alone: there is one picture to make, whose failure is the command's. Of several, a failed one is left out.
    """

    def __init__(self, args: argparse.Namespace, ranks: DistributedContext, alone: bool) -> None:
        self.args, self.alone = args, alone
        self.mask = load_mask(args.content_mask) if args.content_mask else None
        find_model(args.model)
        self.device = ranks.pick_device(args.device)

    @cached_property
    def model(self) -> StyleTransferModel:
        return open_model(self.args, self.device)

    def read(self, job: Job) -> tuple[Tensor, Tensor | None] | Failure:
        """The content, (1, 3, H, W), and its opacity, (1, 1, H, W)."""
        try:
            job.styles.read()
            picture, alpha = load_image(job.content), load_alpha(job.content)
            if self.args.size:
                picture = resize_image(picture, short_side=self.args.size)
            if alpha is not None:
                alpha = resize_image(alpha, size=(picture.shape[-2], picture.shape[-1]))
            if self.mask is not None:
                fit_mask(self.mask, picture, "content")
        except (ValueError, RuntimeError, MemoryError) as error:
            return self._failure(job, error)
        return picture, alpha

    def paint(self, job: Job, read: tuple[Tensor, Tensor | None] | Failure) -> tuple[Tensor, Tensor | None] | Failure:
        """The content in the styles, and its opacity."""
        if isinstance(read, Failure):
            return read
        (picture, alpha), args = read, self.args
        try:
            result = stylize(
                self.model, picture, job.styles.encoded(self.model), style_weights=args.style_weights,
                strength=args.strength, temperature=args.temperature, content_mask=self.mask,
                keep_color=args.keep_color, max_memory_gb=args.max_memory_gb,
            )  # fmt: skip
        except (ValueError, RuntimeError, MemoryError) as error:
            return self._failure(job, error)
        return result, alpha

    def write(self, job: Job, made: tuple[Tensor, Tensor | None] | Failure) -> str | Failure:
        """The size as a person reads it. What cannot be written ends the run: the others go to the same folder."""
        if isinstance(made, Failure):
            return made
        picture, alpha = made
        save_image(picture, job.output, alpha=alpha)
        return f"{picture.shape[-1]}x{picture.shape[-2]}"

    def _failure(self, job: Job, error: Exception) -> Failure:
        """Raises what is not the picture's fault, or the only picture's."""
        if self.alone or not (isinstance(error, ValueError) or is_out_of_memory(error)):
            raise error
        logger.debug("%s failed", job.output, exc_info=True)
        return Failure(explain(error)[1])


# What is made of what, and where it goes


def plan(args: argparse.Namespace) -> list[StyleMix]:
    """All results, with their paths checked.

    Raises:
        ImageError, OutputError: a path that will not do.
        ValueError: options that do not fit together.
    """
    contents, styles = find_images(args.content, without=args.output), find_styles(args.style)
    is_mix = len(styles) == len(args.style)
    masks = style_masks(args, styles)
    check_shares(args, styles, is_mix)
    mixes = [(styles, masks)] if is_mix else [([style], [mask]) for style, mask in zip(styles, masks, strict=True)]
    names = [content.stem if is_mix else f"{content.stem}__{mix[0].stem}" for mix, _ in mixes for content in contents]
    outputs = _outputs(args.output, names)
    check_no_input_among(outputs, [*contents, *styles, *masks, args.content_mask or NO_MASK])
    make_folder(outputs[0].parent)
    remaining = iter(outputs)
    return [StyleMix(mix, mix_masks, [(content, next(remaining)) for content in contents]) for mix, mix_masks in mixes]


def _outputs(output: str, names: Sequence[str]) -> list[Path]:
    """Paths to write, all different."""
    folder = Path(output)
    if len(names) == 1 and not folder.is_dir() and not output.endswith(("/", os.sep)):
        check_output(folder)
        return [folder]
    if not folder.is_dir() and folder.suffix.lower() in WRITE_FORMATS:
        raise OutputError(f"{folder} is no folder, and {len(names)} pictures are to go there. Name a folder.")
    return [folder / name for name in distinct_names(names)]


def distinct_names(stems: Iterable[str], suffix: str = ".png") -> Iterator[str]:
    """File names, numbered where stems repeat; case does not tell files apart on every system.

    >>> list(distinct_names(["sea", "hill", "Sea"]))
    ['sea.png', 'hill.png', 'Sea-2.png']
    """
    taken: set[str] = set()
    for stem in stems:
        numbered = (stem if number == 1 else f"{stem}-{number}" for number in itertools.count(1))
        name = next(name for name in numbered if name.casefold() not in taken)
        taken.add(name.casefold())
        yield name + suffix
