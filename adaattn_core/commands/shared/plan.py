"""What a run of `adaattn stylize` paints: its results with their styles, and the share of this process."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ...io.files import is_stream, remove_leftovers
from ...io.image_files import search_images
from ...runtime.distributed import DistributedContext
from .options import NO_MASK, check_style_weights, find_styles, style_masks
from .paths import check_no_input_among, make_folder, refusal
from .regions import Region
from .results import Result, place_results, without_results


class StyleMix(NamedTuple):
    """The results that are painted in one mix of styles."""

    styles: list[Path]
    masks: list[str]
    results: list[Result]


class Plan(NamedTuple):
    """What a run paints, the number of results that were asked for, and a line for each part that it cannot paint."""

    mixes: list[StyleMix]
    total: int
    failures: list[str]
    regions: list[Region]


def plan(args: argparse.Namespace) -> Plan:
    """All results, with their paths and options checked.

    Raises:
        ImageError: an input does not exist, or the output has an unknown suffix.
        OutputError: an output cannot be written.
        ValueError: the options do not fit together.
    """
    found, failures = search_images(args.content, without=args.output)
    regions = find_regions(args)
    styles = find_styles(args.style or [], without=args.output)
    one_by_one = len(args.style or []) == 1 and styles[0].root is not None
    if one_by_one:
        styles = without_results(styles, args.output)
    paths = [style.path for style in styles]
    masks = style_masks(args, paths)
    check_style_weights(args, paths, not one_by_one or len(paths) == 1)
    contents = without_results(found, args.output)
    results = place_results(contents, styles, args.output, one_by_one)
    outputs = [result.output for mix in results for result in mix]
    inputs = [*paths, *masks, args.content_mask or NO_MASK, *(path for region in regions for path in region)]
    check_no_input_among(outputs, [*(content.path for content in contents), *inputs])
    mixes = [([path], [mask]) for path, mask in zip(paths, masks, strict=True)] if one_by_one else [(paths, masks)]
    if outputs and not is_stream(outputs[0]):
        make_folder(outputs[0].parent if [Path(args.output)] == outputs else Path(args.output))
    for folder in {path.parent for path in outputs}:
        remove_leftovers(folder)
    refused = {path: line for path in outputs if len(outputs) > 1 and (line := refusal(path))}
    return Plan(
        [StyleMix(*mix, [result for result in some if result.output not in refused])
         for mix, some in zip(mixes, results, strict=True)],
        len(outputs), [*failures, *refused.values()], regions,
    )  # fmt: skip


def find_regions(args: argparse.Namespace) -> list[Region]:
    """The values of --region.

    Raises:
        ImageError: a pattern names no picture.
        ValueError: there is no style at all, a pattern names several pictures, or the pixels are to be refined.
    """
    if not args.region:
        if not args.style:
            raise ValueError("there is no style. Give --style S, or --region MASK STYLE.")
        return []
    if args.refine:
        raise ValueError("--refine came with --region, which refinement does not know. Leave one of them out.")
    return [
        Region(mask, find_styles([style], allow_many=False, option=f"--region {mask}")[0].path)
        for mask, style in args.region
    ]


def share_of(mixes: Sequence[StyleMix], ranks: DistributedContext, skip_done: bool = False) -> list[StyleMix]:
    """The results that this process makes: every `world`-th result of all processes.

    Results that are done are skipped after the division: processes that look at different times would otherwise divide
    the results differently.
    """
    numbers = itertools.count()
    shares = [
        mix._replace(results=[result for result in mix.results if next(numbers) % ranks.world == ranks.rank])
        for mix in mixes
    ]
    if skip_done:
        shares = [mix._replace(results=[result for result in mix.results if not result.is_done()]) for mix in shares]
    return [mix for mix in shares if mix.results]


def result_count(mixes: Sequence[StyleMix]) -> int:
    return sum(len(mix.results) for mix in mixes)
