"""Repaint pictures in the style of other pictures."""

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

import torch
from torch import Tensor

from ..checkpoints.model_file import find_model
from ..checkpoints.vgg import load_vgg
from ..errors import ImageError, OutputError
from ..inference.refine import refine
from ..inference.stylize import stylize
from ..io.formats import WRITE_FORMATS
from ..io.image_files import find_images
from ..io.images import load_alpha, load_image, load_mask, save_image
from ..models.encoder import VGGEncoder
from ..models.model import StyleTransferModel
from ..ops.masks import fit_mask
from ..ops.resize import resize_image
from ..runtime.distributed import DistributedContext
from ..runtime.memory import is_out_of_memory
from ..runtime.prefetch import PREFETCH, prefetch_map
from ..runtime.progress import StepCounter, progress_bar
from .errors import explain
from .options import (
    NO_MASK,
    Styles,
    add_memory_option,
    add_model_options,
    add_refine_option,
    add_size_options,
    add_style_mask_option,
    add_stylize_options,
    check_no_input_among,
    check_output,
    check_style_weights,
    find_styles,
    make_folder,
    non_negative_number,
    open_model,
    style_masks,
)

logger = logging.getLogger(__name__)

EXAMPLES = """\
examples:
  adaattn stylize photo.jpg --style painting.jpg -o result.png
  adaattn stylize photo.jpg --style a.jpg --style b.jpg --style-weights .7,.3 -o mixed.png
The strokes of the style, in about a minute for each picture:
  adaattn stylize photo.jpg --style painting.jpg -o result.png --refine 60
Every picture of a folder; --resume continues a run that was stopped:
  adaattn stylize holiday/ --style painting.jpg -o results/ --resume
One result for each style, named photo__painting.png:
  adaattn stylize photo.jpg --style "paintings/*.jpg" -o results/
The same folder divided among 4 processes, each with its own GPU if there are 4:
  torchrun --nproc-per-node 4 -m adaattn_core stylize holiday/ --style painting.jpg -o results/
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument(
        "content", nargs="+", metavar="CONTENT", help="pictures to repaint: files, folders or glob patterns"
    )
    parser.add_argument(
        "--style", action="append", required=True, metavar="S",
        help="style picture. Give the option several times to mix styles. A single folder or glob pattern makes one "
        "result for each of its pictures",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", required=True, metavar="OUT",
        help="picture to write; or a folder, in which each result is a PNG file named after its content",
    )  # fmt: skip
    add_stylize_options(parser.add_argument_group("style transfer"))
    _add_refine_options(parser.add_argument_group("refinement"))
    _add_region_options(parser.add_argument_group("sizes and masks"))
    add_model_options(parser)
    add_memory_option(
        parser,
        "a limit turns off reading files ahead. --refine has its own need, which this does not limit: about 1 GiB for "
        "512 x 512 pixels, up to 4 GiB for 1024 x 1024",
    )
    parser.add_argument(
        "--resume", action="store_true", help="skip results that already exist, to continue a run that was stopped"
    )


def _add_refine_options(group: argparse._ArgumentGroup) -> None:
    add_refine_option(group)
    group.add_argument(
        "--refine-content", type=non_negative_number, default=0.0, metavar="W",
        help="how strictly --refine holds on to the shapes of the content: 0 is neutral, 1 and more keep them more "
        "strictly (default: 0)",
    )  # fmt: skip


def _add_region_options(group: argparse._ArgumentGroup) -> None:
    add_size_options(group, "contents")
    group.add_argument(
        "--content-mask", metavar="M", help="mask picture: white is repainted, black stays as in the content"
    )
    add_style_mask_option(group)


class StyleMix(NamedTuple):
    """The results that are painted in one mix of styles."""

    styles: list[Path]
    masks: list[str]
    results: list[tuple[Path, Path]]
    """(content, output) of each result."""


class Job(NamedTuple):
    """One picture to stylize."""

    content: Path
    output: Path
    styles: Styles


class Failure(NamedTuple):
    """The reason in one line why a picture could not be stylized."""

    reason: str


def run(args: argparse.Namespace) -> int:
    started = time.monotonic()
    ranks, mixes = DistributedContext.from_env(), plan(args)
    share = share_of(mixes, ranks)
    remaining = share_of(mixes, ranks, skip_existing=args.resume)
    total, existing = _result_count(remaining), _result_count(share) - _result_count(remaining)
    is_single = _result_count(mixes) == 1
    outcomes = _stylize_all(StylizeJob(args, ranks, is_single), _jobs(remaining, args), total)
    process = f"process {ranks.rank} of {ranks.world}: " if ranks.world > 1 else ""
    failures = [outcome.reason for outcome in outcomes if isinstance(outcome, Failure)]
    if failures:
        count = f"{len(failures)} of {total} pictures failed"
        raise ImageError(f"{process}{count}, the others are done. The first failure: {failures[0]}")
    if is_single and outcomes:
        summary = f"{remaining[0].results[0][1]}  {outcomes[0]}"
    else:
        skipped = f", {existing} skipped that already existed" if existing else ""
        noun = "picture" if total == 1 else "pictures"
        summary = f"{total} {noun} in {args.output}{skipped}"
    print(f"{process}{summary}  {time.monotonic() - started:.1f} s")
    return 0


def _jobs(mixes: Iterable[StyleMix], args: argparse.Namespace) -> Iterator[Job]:
    """The jobs of all mixes; the jobs of one mix share its styles."""
    for mix in mixes:
        styles = Styles(mix.styles, mix.masks, args)
        for content, output in mix.results:
            yield Job(content, output, styles)


def _stylize_all(worker: StylizeJob, jobs: Iterable[Job], total: int) -> list[str | Failure]:
    """Runs all jobs; the main process shows a progress bar if there are several, or if they are refined."""
    ahead = 0 if worker.args.max_memory_gb else PREFETCH  # a memory limit leaves no room for pictures read ahead
    outcomes: list[str | Failure] = []
    refine_steps = worker.args.refine
    enabled = None if (total > 1 or refine_steps) and worker.ranks.is_main_process else False
    with progress_bar(total * (refine_steps or 1), unit="step" if refine_steps else "picture", enabled=enabled) as bar:
        worker.counter = StepCounter(bar, refine_steps or 1)
        for _, outcome in prefetch_map(jobs, worker.read, worker.stylize, worker.write, ahead):
            outcomes.append(outcome)
    return outcomes


def _result_count(mixes: Sequence[StyleMix]) -> int:
    return sum(len(mix.results) for mix in mixes)


def share_of(mixes: Sequence[StyleMix], ranks: DistributedContext, skip_existing: bool = False) -> list[StyleMix]:
    """The results that this process makes: every `world`-th result of all processes.

    Existing results are skipped after the division: processes that look at different times would otherwise divide
    the results differently.
    """
    numbers = itertools.count()
    shares = [
        mix._replace(results=[result for result in mix.results if next(numbers) % ranks.world == ranks.rank])
        for mix in mixes
    ]
    if skip_existing:
        shares = [mix._replace(results=[result for result in mix.results if not result[1].exists()]) for mix in shares]
    return [mix for mix in shares if mix.results]


class StylizeJob:
    """Reads, stylizes and writes pictures one after another; `prefetch_map` runs each step in its own thread.

    The model is loaded after the first picture was read, so that an error in the inputs is reported at once.

    Args:
        args: the options of the command.
        ranks: the process and its device.
        is_single: there is one picture in all: its failure is the failure of the command. If there are several,
            a failed picture is left out.

    Attributes:
        counter: the progress of the run, if it is shown.
    """

    def __init__(self, args: argparse.Namespace, ranks: DistributedContext, is_single: bool) -> None:
        self.args, self.ranks, self.is_single = args, ranks, is_single
        self.counter: StepCounter | None = None
        self.mask = load_mask(args.content_mask) if args.content_mask else None
        find_model(args.model)
        self.device = ranks.pick_device(args.device)

    @cached_property
    def model(self) -> StyleTransferModel:
        return open_model(self.args, self.device)

    @cached_property
    def vgg(self) -> VGGEncoder:
        """The network of the refinement."""
        return load_vgg(normalized=True).to(self.device)

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

    def stylize(
        self, job: Job, inputs: tuple[Tensor, Tensor | None] | Failure
    ) -> tuple[Tensor, Tensor | None] | Failure:
        """The stylized content and its opacity."""
        outputs = inputs
        if not isinstance(inputs, Failure):
            try:
                outputs = self._stylize(job.styles, inputs[0]), inputs[1]
            except (ValueError, RuntimeError, MemoryError) as error:
                outputs = self._failure(job, error)
        if self.counter is not None:
            self.counter.finish()
        return outputs

    def _stylize(self, styles: Styles, picture: Tensor) -> Tensor:
        args = self.args
        options = {
            "style_weights": args.style_weights,
            "strength": args.strength,
            "temperature": args.temperature,
            "content_mask": self.mask,
            "keep_color": args.keep_color,
        }
        encoded = styles.encoded(self.model)
        result = stylize(self.model, picture, encoded, max_memory_gb=args.max_memory_gb, **options)
        if not args.refine:
            return result
        pictures, masks = zip(*styles.pictures, strict=True)
        return refine(
            result, picture, pictures, style_masks=masks, steps=args.refine, content_weight=args.refine_content,
            vgg=self.vgg, dtype=torch.float32 if args.precision == "float32" else None, progress=self.counter,
            **options,
        )  # fmt: skip

    def write(self, job: Job, outputs: tuple[Tensor, Tensor | None] | Failure) -> str | Failure:
        """Writes the picture and returns its size as text. An error ends the run: all results go to one folder."""
        if isinstance(outputs, Failure):
            return outputs
        picture, alpha = outputs
        save_image(picture, job.output, alpha=alpha)
        return f"{picture.shape[-1]}x{picture.shape[-2]}"

    def _failure(self, job: Job, error: Exception) -> Failure:
        """Raises the error again if it is not about this picture, or if this is the only picture."""
        if self.is_single or not (isinstance(error, ValueError) or is_out_of_memory(error)):
            raise error
        logger.debug("%s failed", job.output, exc_info=True)
        return Failure(explain(error)[1])


# Inputs and outputs of the command


def plan(args: argparse.Namespace) -> list[StyleMix]:
    """All results, with their paths and options checked.

    Raises:
        ImageError: an input does not exist, or the output has an unknown suffix.
        OutputError: an output cannot be written.
        ValueError: the options do not fit together.
    """
    contents, styles = find_images(args.content, without=args.output), find_styles(args.style)
    is_mix = len(styles) == len(args.style)
    masks = style_masks(args, styles)
    check_style_weights(args, styles, is_mix)
    mixes = [(styles, masks)] if is_mix else [([style], [mask]) for style, mask in zip(styles, masks, strict=True)]
    names = [content.stem if is_mix else f"{content.stem}__{mix[0].stem}" for mix, _ in mixes for content in contents]
    outputs = _outputs(args.output, names)
    check_no_input_among(outputs, [*contents, *styles, *masks, args.content_mask or NO_MASK])
    make_folder(outputs[0].parent)
    remaining = iter(outputs)
    return [StyleMix(mix, mix_masks, [(content, next(remaining)) for content in contents]) for mix, mix_masks in mixes]


def _outputs(output: str, names: Sequence[str]) -> list[Path]:
    """The path of each result, no two the same."""
    folder = Path(output)
    if len(names) == 1 and not folder.is_dir() and not output.endswith(("/", os.sep)):
        check_output(folder)
        return [folder]
    if not folder.is_dir() and folder.suffix.lower() in WRITE_FORMATS:
        raise OutputError(f"{folder} is not a folder; a folder is needed for {len(names)} results. Name a folder.")
    return [folder / name for name in distinct_names(names)]


def distinct_names(stems: Iterable[str], suffix: str = ".png") -> Iterator[str]:
    """File names, numbered where stems repeat. Case is ignored, since some file systems ignore it.

    >>> list(distinct_names(["sea", "hill", "Sea"]))
    ['sea.png', 'hill.png', 'Sea-2.png']
    """
    taken: set[str] = set()
    for stem in stems:
        numbered = (stem if number == 1 else f"{stem}-{number}" for number in itertools.count(1))
        name = next(name for name in numbered if name.casefold() not in taken)
        taken.add(name.casefold())
        yield name + suffix
