"""Evaluate models, and existing pictures of any other tool, on the same pairs."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from argparse import ArgumentTypeError
from functools import partial
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..checkpoints.model_file import DEFAULT_MODEL, find_model
from ..checkpoints.vgg import BUILT_IN_VGG, load_vgg
from ..errors import CheckpointError
from ..evaluation.methods import (
    ExistingImages,
    IdentityBaseline,
    Method,
    ModelMethod,
    Pair,
    StyleCopyBaseline,
    attending_at,
    choose_pairs,
    existing_images,
)
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
from ..inference.stages import ATTENTIONS
from ..io.files import atomic_path, remove_leftovers, sole_writer
from ..io.image_files import find_images
from ..runtime.device import PRECISIONS, pick_device
from ..runtime.progress import progress_bar
from ..runtime.signals import exit_code
from .options import (
    fraction,
    integer,
    open_model,
    pixels_or_zero,
    positive_integer,
    positive_number,
    refine_dtype,
    refine_steps,
)
from .shared.idle_options import Idle, remark_idle
from .shared.paths import make_folder

EXAMPLES = """\
examples:
  adaattn evaluate --content photos/ --style paintings/ -o report/
  adaattn evaluate --content photos/ --style paintings/ --vgg16 torchvision -o report/ \\
      --model compact --model mine=runs/mine/model.safetensors --pictures other=results/
Pictures of other tools are called CONTENT__STYLE.png (or .jpg, ...) after the names of their content and style.
Options of a model follow after commas: --model sampled=compact,attention=sampled,temperature=2,strength=.8
refine=60 refines each picture in 60 steps, which takes about half a minute for a picture at --size 256.
levels=relu3_1+relu4_1 (or levels=none) attends at these levels alone and uses AdaIN's statistics at the others.
"""

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
    methods, pairs = _methods_and_pairs(args)
    suite = load_metric_suite(args)
    remark_idle(IDLE, args)
    make_folder(args.output)
    with sole_writer(args.output, "evaluates"):
        return _evaluate(args, suite, methods, pairs, started)


def _evaluate(
    args: argparse.Namespace, suite: MetricSuite, methods: list[Method], pairs: list[Pair], started: str
) -> int:
    """Measures all pairs and writes the report; returns the exit code."""
    evaluation = Evaluation(suite, methods, pairs, Records.open(args.output / "results.jsonl", args.fresh), args.size)
    remove_leftovers(args.output / "thumbnails")
    thumbnails = Thumbnails(args.output / "thumbnails", pairs, min(args.show, len(pairs)))
    evaluation.on_result = partial(thumbnails.save, evaluation)
    try:
        with progress_bar(len(pairs) * len(methods), unit="picture") as bar:
            evaluation.run(bar)
    except KeyboardInterrupt as stop:
        print(
            f"adaattn: interrupted; measurements are kept in {args.output}. Run the same command to continue.",
            file=sys.stderr,
        )
        return exit_code(stop)
    overall = {"artfid": _art_fids(evaluation, args)} if args.artfid else {}
    report = summarize(evaluation, args.seed, _peaks(evaluation), overall, _settings(args, started))
    _write(args.output / "report.json", json.dumps(report, indent=1) + "\n")
    _write(args.output / "report.html", render(report, thumbnails.examples(evaluation, report["metrics"])))
    _print_summary(report, args.output)
    return 0


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


# Methods


def _methods_and_pairs(args: argparse.Namespace) -> tuple[list[Method], list[Pair]]:
    """The rows of the table, and the pairs that all of them are measured on."""
    folders = [_existing_images(text) for text in args.pictures]
    contents, styles = (find_images(patterns, without=args.output) for patterns in (args.content, args.style))
    pairs = choose_pairs(contents, styles, folders, args.pairs, args.seed)
    models = args.model or ([] if folders else [DEFAULT_MODEL])
    methods: list[Method] = [method for text in models for method in _model_methods(text, args)]
    methods += [*folders, IdentityBaseline(), StyleCopyBaseline()]
    names = [method.name for method in methods]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two rows would be called {name!r}. Give one another name with LABEL=.")
    return methods, pairs


def _model_methods(text: str, args: argparse.Namespace) -> list[ModelMethod]:
    """The row of a --model argument, followed by its ablations with --ablate."""
    label, name, options = _parse_model(text)
    first = _model_method(label, name, options, args)
    if not args.ablate:
        return [first]
    levels = first.model.config.levels
    ablations: list[tuple[str, dict[str, Any]]] = [
        ("AdaIN statistics", {"levels": ()}), ("sampled", {"attention": "sampled"}),
    ]  # fmt: skip
    if len(levels) > 1:
        ablations.append((f"{levels[0]} alone", {"levels": levels[:1]}))
    return [first, *(_model_method(f"{label}, {title}", name, options | change, args) for title, change in ablations)]


def _model_method(label: str, name: str, options: dict[str, Any], args: argparse.Namespace) -> ModelMethod:
    path = find_model(name)
    model = open_model(argparse.Namespace(model=name, device=args.device, precision=args.precision))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    if "levels" in options:
        levels = options["levels"]
        options = {key: value for key, value in options.items() if key != "levels"}
        model, digest = attending_at(model, levels), f"{digest} at {'+'.join(levels) or 'none'}"
    return ModelMethod(label, model, name, digest, **options, refine_dtype=refine_dtype(args.precision))


def _parse_model(text: str) -> tuple[str, str, dict[str, Any]]:
    """Label, name or file, and options of a --model argument.

    >>> _parse_model("soft=compact,temperature=2")
    ('soft', 'compact', {'temperature': 2.0})
    >>> _parse_model("runs/mine/model.safetensors")
    ('mine', 'runs/mine/model.safetensors', {})
    """
    if Path(text).is_file():
        return _label(text), text, {}
    head, *settings = text.split(",")
    label, name = _parse_label(head)
    parsers = {
        "attention": _attention,
        "temperature": positive_number,
        "strength": fraction,
        "levels": _levels,
        "refine": refine_steps,
    }
    options = {}
    for setting in settings:
        key, _, value = setting.partition("=")
        if key not in parsers:
            raise ValueError(f"--model {text} sets {key!r}; known are {', '.join(parsers)}")
        try:
            options[key] = parsers[key](value)
        except ArgumentTypeError as error:
            raise ValueError(f"--model {text}: {key}: {error}") from None
    return label or _label(name), name, options


def _existing_images(text: str) -> ExistingImages:
    label, folder = _parse_label(text)
    return existing_images(label or Path(folder).name, folder)


def _parse_label(text: str) -> tuple[str, str]:
    label, equals, name = text.partition("=")
    return (label, name) if equals and not Path(text).exists() else ("", text)


def _label(name: str) -> str:
    """The file name without suffix; of RUN/model.safetensors the name of the run."""
    path = Path(name)
    return path.parent.name if path.stem == "model" and path.parent.name else path.stem


def _attention(text: str) -> str:
    if text not in ATTENTIONS:
        raise ArgumentTypeError(f"{text!r} is unknown; known are {', '.join(ATTENTIONS)}")
    return text


def _levels(text: str) -> tuple[str, ...]:
    return () if text == "none" else tuple(text.split("+"))


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
