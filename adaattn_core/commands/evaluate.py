"""Evaluate models, and existing pictures of any other tool, on the same pairs."""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import sys
import time
from contextlib import nullcontext
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..checkpoints.model_file import DEFAULT_MODEL
from ..checkpoints.vgg import BUILT_IN_VGG, load_vgg
from ..errors import CheckpointError
from ..evaluation.methods import ModelMethod
from ..evaluation.metric_suite import MetricSuite
from ..evaluation.networks import (
    ArtFIDError,
    FeatureNetworks,
    art_fid,
    load_lpips_alex,
    load_lpips_heads,
    load_vgg16,
    package_lpips_heads,
    prepare_network,
)
from ..evaluation.peak_memory import peak_memory_gib
from ..evaluation.report import NO_CHART, check_template_engine, render
from ..evaluation.runner import Evaluation, Records
from ..evaluation.scatter_plot import has_matplotlib
from ..evaluation.summary import not_measured, summarize, table
from ..evaluation.thumbnails import Thumbnails
from ..io.files import atomic_path, remove_leftovers, sole_writer
from ..runtime.device import PRECISIONS, pick_device
from ..runtime.distributed import DistributedContext, PeerError, PeerLostError
from ..runtime.progress import progress_bar
from ..runtime.remarks import FileNote
from ..runtime.signals import exit_code, stop_word
from .shared.errors import FAILED, explain
from .shared.evaluated import methods_and_pairs
from .shared.idle_options import Idle, remark_idle
from .shared.options import integer, pixels_or_zero, positive_integer
from .shared.paths import check_can_make, make_folder

logger = logging.getLogger(__name__)

EXAMPLES = """\
examples:
  adaattn evaluate --content photos/ --style paintings/ -o report/
  adaattn evaluate --content photos/ --style paintings/ --vgg16 torchvision -o report/ \\
      --model compact --model mine=runs/mine/model.safetensors --pictures other=results/
Pictures of other tools are called CONTENT__STYLE.png (or .jpg, ...) after the names of their content and style.
Options of a model follow after commas: --model sampled=compact,attention=sampled,temperature=2,strength=.8
refine=60 refines each picture in 60 steps, which takes about half a minute for a picture at --size 256.
levels=relu3_1+relu4_1 (or levels=none) attends at these levels alone and uses AdaIN's statistics at the others.
The pairs divided among 4 processes, each with its own GPU if there are 4:
  torchrun --nproc-per-node 4 -m adaattn_core evaluate --content photos/ --style paintings/ -o report/
"""

PATIENCE = timedelta(days=30)
"""How long a process waits for others that still measure their share."""

IDLE = (
    Idle("--lpips", lambda args: not args.vgg16, "without --vgg16, whose features it weighs"),
    Idle("--ablate --precision", lambda args: args.pictures and not args.model, "without --model: no model is run"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    for name in ("content", "style"):
        parser.add_argument(
            f"--{name}", nargs="+", required=True, metavar=name[0].upper(), help="pictures, folders or globs"
        )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="REPORT_DIR", help="folder for the report")
    parser.add_argument(
        "--model", action="append", default=[], metavar="[LABEL=]NAME|FILE",
        help=f"a model to evaluate; repeat for more (default: {DEFAULT_MODEL}, or none with --pictures)",
    )  # fmt: skip
    parser.add_argument(
        "--pictures", action="append", default=[], metavar="[LABEL=]FOLDER",
        help="existing pictures to evaluate, called CONTENT__STYLE.*; repeat for more",
    )  # fmt: skip
    parser.add_argument(
        "--ablate", action="store_true",
        help="for each model up to three more rows: AdaIN's statistics instead of attention, sampled attention, and "
        "attention at its first level alone, if it has more",
    )  # fmt: skip
    _add_networks(parser.add_argument_group("networks of the metrics"))
    parser.add_argument(
        "--pairs",
        type=positive_integer,
        metavar="N",
        help="evaluate N pairs, drawn with --seed (default: all available pairs)",
    )
    parser.add_argument(
        "--seed", type=integer, default=0, metavar="N", help="seed of the draw and of the intervals (default: 0)"
    )
    parser.add_argument(
        "--size", type=pixels_or_zero, default=512, metavar="PX",
        help="reduce contents and styles to this short side where theirs is longer; 0 keeps them (default: 512)",
    )  # fmt: skip
    parser.add_argument("--show", type=integer, default=8, metavar="N", help="pairs to show as pictures (default: 8)")
    parser.add_argument("--fresh", action="store_true", help="discard measurements of earlier runs into REPORT_DIR")
    parser.add_argument(
        "--device", default="auto", help="adaattn info lists the devices of this machine (default: the fastest device)"
    )
    parser.add_argument(
        "--precision",
        default="auto",
        choices=PRECISIONS,
        help="precision of the models; auto is float32, for refine=N bfloat16 where it is native",
    )


def _add_networks(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--vgg", default=BUILT_IN_VGG, metavar="built-in|FILE|torchvision",
        help="VGG-19 of the metrics Style (VGG-19) and Content (VGG-19) (default: the built-in one). Patch distance, "
        "style spread and style retrieval are always measured with the built-in one",
    )  # fmt: skip
    group.add_argument(
        "--vgg16", "--judge", metavar="FILE|torchvision",
        help="VGG-16, with which no model is trained: for the metrics Style (VGG-16), Gram, CFSD and LPIPS (VGG-16)",
    )  # fmt: skip
    group.add_argument(
        "--lpips",
        metavar="FILE",
        help="LPIPS v0.1 heads for VGG-16 (default: those of the lpips package, if installed)",
    )
    group.add_argument("--artfid", action="store_true", help="also ArtFID, by the art-fid package: slow, many files")


def run(args: argparse.Namespace) -> int:
    check_template_engine()
    started = time.strftime("%Y-%m-%d %H:%M")
    ranks = DistributedContext.from_env()
    try:
        with ranks.process_group(PATIENCE):
            if ranks.world > 1:
                args.device = str(ranks.pick_device(args.device))
            with ranks.main_process_warns(), ranks.local_main_first():
                check_can_make(args.output)  # before anything is downloaded
                methods, pairs = methods_and_pairs(args)
                suite = load_metric_suite(args)
                remark_idle(IDLE, args)
                make_folder(args.output)
            with sole_writer(args.output, "evaluates") if ranks.is_main_process else nullcontext():
                evaluation = Evaluation(suite, methods, pairs, _open_records(args, ranks), args.size)
                return _evaluate(args, ranks, evaluation, started)
    except PeerError as error:
        if ranks.is_main_process:
            lost = isinstance(error, PeerLostError)
            _say_how_to_continue("another process of the run is gone" if lost else str(error), args.output)
        return FAILED
    except KeyboardInterrupt as stop:
        if ranks.is_main_process:
            raise
        return exit_code(stop)


def _open_records(args: argparse.Namespace, ranks: DistributedContext) -> Records:
    """The records of this process: those of the folder, and in another than the main process a file for its own."""
    path = args.output / "results.jsonl"
    if ranks.is_main_process:
        records = Records.open(path, args.fresh)
        remove_leftovers(args.output / "thumbnails")
    ranks.sync_status()
    return records if ranks.is_main_process else Records.open_part(path, ranks.rank)


def _evaluate(args: argparse.Namespace, ranks: DistributedContext, evaluation: Evaluation, started: str) -> int:
    """Measures this process's share of the pairs; the main process writes the report. Returns the exit code."""
    pairs, methods = evaluation.pairs, evaluation.methods
    thumbnails = Thumbnails(args.output / "thumbnails", pairs, min(args.show, len(pairs)))
    evaluation.on_result = partial(thumbnails.save, evaluation)
    share = pairs[ranks.rank * len(pairs) // ranks.world : (ranks.rank + 1) * len(pairs) // ranks.world]
    enabled = None if ranks.is_main_process else False
    try:
        with progress_bar(len(share) * len(methods), unit="picture", enabled=enabled, piped=True) as bar:
            evaluation.run(bar, share)
    except KeyboardInterrupt as stop:
        if ranks.is_main_process:
            _say_how_to_continue(stop_word(stop), args.output)
        return exit_code(stop)
    except Exception as error:
        if ranks.world > 1:  # it raises its error together with the others, which is later
            logger.error("process %d of %d stops; the others finish their share: %s", ranks.rank, ranks.world,
                         explain(error)[1])  # fmt: skip
        raise
    notes, _ = ranks.sync_status([FileNote(name, why, True) for name, why in evaluation.unreadable.items()])
    if not ranks.is_main_process:
        return 0
    evaluation.unreadable = {note.name: note.text for note in notes}
    evaluation.records.merge()
    overall = {"artfid": _art_fids(evaluation, args)} if args.artfid else {}
    report = summarize(evaluation, args.seed, _peaks(evaluation), overall, _settings(args, started))
    _write(args.output / "report.json", json.dumps(report, indent=1) + "\n")
    _write(args.output / "report.html", render(report, thumbnails.examples(evaluation, report["metrics"])))
    _print_summary(report, args.output)
    return 0


def _say_how_to_continue(reason: str, folder: Path) -> None:
    print(f"adaattn: {reason}; measurements are kept in {folder}. Run the same command to continue.", file=sys.stderr)


def _print_summary(report: dict[str, Any], folder: Path) -> None:
    print(table(report))
    print(f"{len(report['pairs'])} pairs; ± is half the width of the {report['intervals']['confidence']:.0%} interval")
    for reason, pairs in report["broken"].items():
        print(f"left out {pairs} pair(s): {reason}")
    for line in not_measured(report):
        print(line)
    if not has_matplotlib():
        print(NO_CHART)
    print(folder / "report.html")


# Networks


def load_metric_suite(args: argparse.Namespace) -> MetricSuite:
    """The networks that the options name; those that are optional and not available give a reason instead."""
    device = pick_device(args.device)
    reasons = {} if args.artfid else {"artfid": "not asked for; add --artfid"}
    vgg19, normalized = (prepare_network(net, device) for net in (load_vgg(args.vgg), load_vgg(normalized=True)))
    vgg16 = heads = alex = None
    if args.vgg16:
        vgg16 = prepare_network(load_vgg16(args.vgg16), device)
    else:
        reasons["vgg16"] = "it needs --vgg16 FILE or torchvision"
    try:
        if args.vgg16 or args.lpips:
            heads = load_lpips_heads(args.lpips) if args.lpips else package_lpips_heads()
            heads = {level: head.to(device) for level, head in heads.items()}
    except CheckpointError as error:
        if args.lpips:
            raise
        reasons["lpips_heads"] = f"{error}, or name its heads with --lpips FILE"
    try:
        alex = load_lpips_alex(device)
    except CheckpointError as error:
        reasons["lpips_alex"] = str(error)
    return MetricSuite(FeatureNetworks(vgg19, vgg16, heads, alex, normalized), reasons)


# Values of a method as a whole


def _peaks(evaluation: Evaluation) -> dict[str, float | None]:
    """Peak memory of each model on the largest content of the evaluation, cached in the records."""
    complete, by_key = evaluation.complete(), evaluation.records.by_key
    peaks: dict[str, float | None] = {}
    for index, method in enumerate(evaluation.methods):
        if isinstance(method, ModelMethod) and complete:
            pair = max(complete, key=lambda pair: complete[pair][index]["pixels"])  # noqa: B023 (used at once)
            key = "peak " + evaluation.key(method, pair)
            if key not in by_key:
                evaluation.records.add({"key": key, "peak_gib": peak_memory_gib(method, pair, evaluation.size)})
            peaks[method.name] = by_key[key]["peak_gib"]
    return peaks


def _art_fids(evaluation: Evaluation, args: argparse.Namespace) -> dict[str, float]:
    """ArtFID of each method; empty where it cannot be computed, with the reason in the suite's `missing`."""
    device = "cuda" if pick_device(args.device).type == "cuda" else "cpu"
    by_key = evaluation.records.by_key
    values = {}
    try:
        for method in evaluation.methods:
            keys = [evaluation.key(method, pair) for pair in evaluation.complete()]
            key = "artfid " + hashlib.sha256("".join(keys).encode()).hexdigest()[:20]
            if key not in by_key:
                pictures = (
                    (method.stylize(pair, sources).picture, *sources)
                    for pair in evaluation.complete()
                    for sources in [evaluation.sources(pair)]
                )
                evaluation.records.add({"key": key, "artfid": art_fid(pictures, args.output, device)})
            values[method.name] = by_key[key]["artfid"]
    except ArtFIDError as error:
        evaluation.suite.missing["artfid"] = str(error)
        return {}
    return values


# The report


def _settings(args: argparse.Namespace, started: str) -> dict[str, Any]:
    names = ("content", "style", "size", "seed", "vgg", "vgg16", "lpips", "device", "precision")
    given = [name for name in names if getattr(args, name) not in (None, "")]
    settings = {"judge" if name == "vgg16" else name: getattr(args, name) for name in given}  # report.json says judge
    made = f"{started}, adaattn {__version__}"
    return {"made": made, **settings, "device": str(pick_device(args.device)), "threads": torch.get_num_threads()}


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")  # file names may hold any bytes
