"""Repaint pictures in the style of other pictures."""

from __future__ import annotations

import argparse
import errno
import logging
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from ..checkpoints.model_file import find_model
from ..checkpoints.vgg import load_vgg
from ..errors import CheckpointError, ImageError, OutputError
from ..inference.refine import refine
from ..inference.stylize import stylize
from ..io.files import is_stream
from ..io.image_files import CONTENT_KEY, source_digest
from ..io.images import holds_alpha, load_color_and_alpha, save_image
from ..models.encoder import VGGEncoder
from ..models.model import StyleTransferModel
from ..ops.opacity import over_white, resize_with_alpha, restore_hidden, visible_color
from ..runtime.distributed import DistributedContext
from ..runtime.prefetch import PREFETCH, prefetch_map
from ..runtime.progress import StepCounter, progress_bar
from ..runtime.remarks import remark
from ..runtime.signals import exit_code, stop_word
from .shared.claims import claimed
from .shared.errors import explain
from .shared.idle_options import PAINTING, Idle, remark_idle
from .shared.options import (
    STYLE_SIDE,
    Styles,
    add_memory_option,
    add_model_options,
    add_refine_option,
    add_size_options,
    add_stroke_option,
    add_style_mask_option,
    add_stylize_options,
    non_negative_number,
    open_model,
    refine_dtype,
)
from .shared.paths import input_path, output_path, report
from .shared.plan import Plan, StyleMix, plan, result_count, share_of
from .shared.regions import Areas, add_region_option

logger = logging.getLogger(__name__)

EXAMPLES = """\
examples:
  adaattn stylize photo.jpg --style painting.jpg -o result.png
  adaattn stylize photo.jpg --style a.jpg --style b.jpg --style-weights .7,.3 -o mixed.png
The strokes of the style, in about a minute for each picture:
  adaattn stylize photo.jpg --style painting.jpg -o result.png --refine 60
A photo of 12 megapixels with strokes that can be seen:
  adaattn stylize photo.jpg --style painting.jpg -o result.png --stroke-size 1
Every picture of a folder; --resume continues a run that was stopped:
  adaattn stylize holiday/ --style painting.jpg -o results/ --resume
The sky in one style and the rest in another; --region can be given several times:
  adaattn stylize photo.jpg --region sky_mask.png a.jpg --style b.jpg -o result.png
One result for each style, named photo__painting.png:
  adaattn stylize photo.jpg --style "paintings/*.jpg" -o results/
The same folder divided among 4 processes, each with its own GPU if there are 4:
  torchrun --nproc-per-node 4 -m adaattn_core stylize holiday/ --style painting.jpg -o results/
"""

IDLE = (
    *PAINTING,
    Idle("--refine-content", lambda args: not args.refine, "without --refine N, which it steers"),
    Idle("--content-mask", lambda args: not args.style, "without --style, whose region it is beside those of --region"),
    Idle("--resume", lambda args: is_stream(args.output), "where the result is a stream, of which nothing stays"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument(
        "content",
        nargs="+",
        type=input_path,
        metavar="CONTENT",
        help="pictures to repaint: files, folders or glob patterns; - is standard input",
    )
    parser.add_argument(
        "--style", action="append", type=input_path, metavar="S",
        help="style picture; needed unless there is a --region. Give the option several times to mix styles. A single "
        "folder or glob pattern makes one result for each of its pictures",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", required=True, type=output_path, metavar="OUT",
        help="picture to write, - for a PNG file on standard output; or a folder, in which each result is a PNG file "
        "with the name and the subfolder of its content. The results of a folder go to a folder",
    )  # fmt: skip
    style_transfer = parser.add_argument_group("style transfer")
    add_stylize_options(style_transfer)
    add_stroke_option(style_transfer)
    _add_refine_options(parser.add_argument_group("refinement"))
    _add_region_options(parser.add_argument_group("sizes and masks"))
    add_model_options(parser, refines=True)
    add_memory_option(
        parser,
        "a limit turns off reading files ahead. --refine has its own need, which this does not limit: about 1 GiB for "
        "512 x 512 pixels, up to 4 GiB for 1024 x 1024",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="skip results that already exist, to continue a run that was stopped; files that are empty, damaged or "
        "painted from another content are painted again",
    )


def _add_refine_options(group: argparse._ArgumentGroup) -> None:
    add_refine_option(group)
    group.add_argument(
        "--refine-content", type=non_negative_number, default=0.0, metavar="W",
        help="how strictly --refine holds on to the shapes of the content: 0 is neutral, 1 and more keep them more "
        "strictly (default: 0)",
    )  # fmt: skip


def _add_region_options(group: argparse._ArgumentGroup) -> None:
    add_size_options(group, "contents", f"{STYLE_SIDE}; with --stroke-size, as each pass needs it")
    group.add_argument(
        "--content-mask",
        type=input_path,
        metavar="M",
        help="mask picture: white is repainted, black stays as in the content",
    )
    add_region_option(group)
    add_style_mask_option(group)


class Pixels(NamedTuple):
    """A picture, (1, 3, H, W), with its opacity, (1, 1, H, W), and the digest of the content it comes from."""

    picture: Tensor
    alpha: Tensor | None
    digest: str


class Job(NamedTuple):
    """One picture to stylize."""

    content: Path
    output: Path
    styles: Styles


class Failure(NamedTuple):
    """The reason in one line why a picture could not be stylized."""

    reason: str


DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
"""Errors of writing that the next picture meets, too."""


def run(args: argparse.Namespace) -> int:
    ranks = DistributedContext.from_env()
    worker = None
    try:
        with ranks.main_process_fails_first(), ranks.main_process_warns():
            planned = plan(args)
            areas = Areas(args.content_mask if args.style else None, planned.regions, args.style_weights)
            worker = StylizeJob(args, ranks, areas, is_single=planned.total == 1)
            remark_idle(IDLE, args)
        return _run_share(worker, planned)
    except KeyboardInterrupt as stop:
        if ranks.is_main_process and (worker is None or worker.is_single):
            raise
        if ranks.is_main_process:  # torchrun ends all processes when one is lost
            print(
                f"adaattn: {stop_word(stop)}; the pictures that are done are in {args.output}. Run the same command "
                "with --resume to go on.",
                file=sys.stderr,
            )
        return exit_code(stop)


def _run_share(worker: StylizeJob, planned: Plan) -> int:
    """Paints the results of this process, and says how many; returns the exit code."""
    started = time.monotonic()
    args, ranks = worker.args, worker.ranks
    share = share_of(planned.mixes, ranks)
    remaining = share_of(planned.mixes, ranks, skip_done=args.resume)
    total, existing = result_count(remaining), result_count(share) - result_count(remaining)
    failures = planned.failures if ranks.is_main_process else []
    for line in failures:  # known before the first picture is painted
        logger.warning("%s", line)
    outputs = [result.output for mix in remaining for result in mix.results]
    with nullcontext() if worker.is_single else claimed(Path(args.output), outputs):
        outcomes = _stylize_all(worker, _jobs(remaining, worker), total)
    process = f"process {ranks.rank} of {ranks.world}: " if ranks.world > 1 else ""
    total += len(failures)
    failures = [*failures, *(outcome.reason for outcome in outcomes if isinstance(outcome, Failure))]
    if failures:
        count = f"{len(failures)} of {total} pictures failed"
        raise ImageError(f"{process}{count}, the others are done. The first failure: {failures[0]}")
    if worker.is_single and outcomes:
        summary = f"{outputs[0]}  {outcomes[0]}"
    else:
        skipped = f", {existing} skipped that already existed" if existing else ""
        noun = "picture" if total == 1 else "pictures"
        summary = f"{total} {noun} in {args.output}{skipped}"
    report(f"{process}{summary}  {time.monotonic() - started:.1f} s", args.output)
    return 0


def _jobs(mixes: Iterable[StyleMix], worker: StylizeJob) -> Iterator[Job]:
    """The jobs of all mixes; the jobs of one mix share its styles."""
    for mix in mixes:
        styles = worker.areas.styles(mix.styles, mix.masks, worker.args)
        for result in mix.results:
            yield Job(result.content, result.output, styles)


def _stylize_all(worker: StylizeJob, jobs: Iterable[Job], total: int) -> list[str | Failure]:
    """Runs all jobs; the main process shows a progress bar if there are several, or if they are refined."""
    ahead = 0 if worker.args.max_memory_gb else PREFETCH  # a memory limit leaves no room for pictures read ahead
    outcomes: list[str | Failure] = []
    refine_steps = worker.args.refine
    enabled = None if (total > 1 or refine_steps) and worker.ranks.is_main_process else False
    unit = "step" if refine_steps else "picture"
    with progress_bar(total * (refine_steps or 1), unit=unit, enabled=enabled, piped=True) as bar:
        worker.counter = StepCounter(bar, refine_steps or 1)
        for _, outcome in prefetch_map(jobs, worker.read, worker.stylize, worker.write, ahead):
            outcomes.append(outcome)
    return outcomes


class StylizeJob:
    """Reads, stylizes and writes pictures one after another; `prefetch_map` runs each step in its own thread.

    The model is loaded after the first picture was read, so that an error in the inputs is reported at once.

    Args:
        args: the options of the command.
        ranks: the process and its device.
        areas: where the styles are painted.
        is_single: there is one picture in all: its failure is the failure of the command. If there are several,
            a failed picture is left out.

    Attributes:
        counter: the progress of the run, if it is shown.
    """

    def __init__(self, args: argparse.Namespace, ranks: DistributedContext, areas: Areas, is_single: bool) -> None:
        self.args, self.ranks, self.areas, self.is_single = args, ranks, areas, is_single
        self.counter: StepCounter | None = None
        find_model(args.model)
        self.device = ranks.pick_device(args.device)

    @cached_property
    def model(self) -> StyleTransferModel:
        return open_model(self.args, self.device)

    @cached_property
    def vgg(self) -> VGGEncoder:
        """The network of the refinement."""
        return load_vgg(normalized=True).to(self.device)

    def read(self, job: Job) -> Pixels | Failure:
        try:
            job.styles.read()
            digest = source_digest(job.content)
            picture, alpha = load_color_and_alpha(job.content)
            if alpha is not None and not holds_alpha(job.output):
                remark(str(job.content), f"{job.output} cannot hold its opacity; it is painted over white")
                picture, alpha = over_white(picture, alpha), None
            if self.args.size:
                picture, alpha = resize_with_alpha(picture, alpha, self.args.size)
            self.areas.check(picture)
        except Exception as error:
            return self._failure(job, error)
        return Pixels(picture, alpha, digest)

    def stylize(self, job: Job, inputs: Pixels | Failure) -> Pixels | Failure:
        """The stylized content."""
        outputs = inputs
        if not isinstance(inputs, Failure):
            try:
                outputs = inputs._replace(picture=self._stylize(job.styles, inputs.picture, inputs.alpha))
            except Exception as error:
                outputs = self._failure(job, error)
        if self.counter is not None:
            self.counter.finish()
        return outputs

    def _stylize(self, styles: Styles, color: Tensor, alpha: Tensor | None) -> Tensor:
        """The painted colours of a content; hidden ones stay where nothing is painted."""
        painted = self._paint(styles, visible_color(color, alpha))
        covered = self.areas.covered(color, len(styles.paths))
        return restore_hidden(painted, color, alpha, self.args.strength * covered)

    def _paint(self, styles: Styles, picture: Tensor) -> Tensor:
        args = self.args
        if not styles.paths:
            return picture  # every mask is black
        options = {
            "strength": args.strength,
            "temperature": args.temperature,
            "keep_color": args.keep_color,
            **self.areas.options(len(styles.paths)),
        }
        result = stylize(
            self.model, picture, **styles.source(self.model), max_memory_gb=args.max_memory_gb, **options
        )  # fmt: skip
        if not args.refine:
            return result
        pictures, masks = zip(*styles.pictures, strict=True)
        return refine(
            result, picture, pictures, style_masks=masks, steps=args.refine, content_weight=args.refine_content,
            vgg=self.vgg, dtype=refine_dtype(args.precision), progress=self.counter,
            **options,
        )  # fmt: skip

    def write(self, job: Job, outputs: Pixels | Failure) -> str | Failure:
        """Writes the picture and returns its size as text."""
        if isinstance(outputs, Failure):
            return outputs
        picture, alpha, digest = outputs
        try:
            save_image(picture, job.output, alpha=alpha, text={CONTENT_KEY: digest})
        except Exception as error:
            return self._failure(job, error)
        return f"{picture.shape[-1]}x{picture.shape[-2]}"

    def _failure(self, job: Job, error: Exception) -> Failure:
        """Raises the error again if it concerns all pictures (the model, the disk), or if this is the only picture."""
        cause = error.__cause__ if isinstance(error, OutputError) else error
        is_of_disk = isinstance(cause, OSError) and cause.errno in DISK_ERRORS
        if self.is_single or is_of_disk or isinstance(error, CheckpointError | BrokenPipeError):
            raise error
        logger.debug("%s failed", job.output, exc_info=True)
        return Failure(explain(error)[1])
