"""Judge models, and finished pictures of any other tool, on the same pairs."""

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
from ..checkpoints.model_file import BUILT_IN, find_model
from ..checkpoints.vgg import load_vgg
from ..errors import CheckpointError
from ..evaluation.ablation import attending_at
from ..evaluation.artfid import ArtFIDError, art_fid
from ..evaluation.methods import (
    ExistingImages,
    IdentityBaseline,
    Method,
    ModelMethod,
    StyleCopyBaseline,
    choose_pairs,
    finished_in,
)
from ..evaluation.metric_suite import MetricSuite
from ..evaluation.networks import load_lpips_alex, load_lpips_heads, load_vgg16, package_lpips_heads, ready_judge
from ..evaluation.peak_memory import peak_memory_gib
from ..evaluation.report import render
from ..evaluation.runner import Evaluation, Records
from ..evaluation.summary import not_measured, summarize, table
from ..evaluation.thumbnails import Gallery
from ..inference.stages import ATTENTIONS
from ..io.files import atomic_path
from ..io.image_files import find_images
from ..runtime.device import PRECISIONS, pick_device
from ..runtime.progress import progress_bar
from .errors import INTERRUPTED
from .options import count, make_folder, open_model, positive, side, unit, whole

EXAMPLES = """\
examples:
  adaattn evaluate --content photos/ --style paintings/ --vgg torchvision -o report/
  adaattn evaluate --content photos/ --style paintings/ --vgg vgg19.pth --judge vgg16.pth -o report/ \\
      --model compact --model mine=runs/mine/model.safetensors --pictures other=results/
Pictures of other tools are called CONTENT__STYLE.png (or .jpg, ...) after the names of their content and style.
A model's painting may be set after commas: --model sampled=compact,attention=sampled,temperature=2,strength=.8
and so may where it attends: levels=relu3_1+relu4_1, or levels=none. Elsewhere it takes AdaIN's statistics.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    for name in ("content", "style"):
        parser.add_argument(
            f"--{name}", nargs="+", required=True, metavar=name[0].upper(), help="pictures, folders or globs"
        )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="REPORT_DIR", help="folder for the report")
    parser.add_argument(
        "--model", action="append", default=[], metavar="[LABEL=]NAME|FILE",
        help=f"a model to judge; again for more (default: {BUILT_IN}, or none with --pictures)",
    )  # fmt: skip
    parser.add_argument(
        "--pictures", action="append", default=[], metavar="[LABEL=]FOLDER",
        help="finished pictures to judge, called CONTENT__STYLE.*; again for more",
    )  # fmt: skip
    parser.add_argument(
        "--ablate", action="store_true",
        help="for each model up to three more rows: AdaIN's statistics instead of attention, sampled attention, and "
        "attention at its first level alone, if it has more",
    )  # fmt: skip
    _add_judges(parser.add_argument_group("judges"))
    parser.add_argument(
        "--pairs", type=count, metavar="N", help="judge N pairs, drawn with --seed (default: all that every row has)"
    )
    parser.add_argument("--seed", type=whole, default=0, metavar="N", help="of the draw and the intervals (default: 0)")
    parser.add_argument(
        "--size", type=side, default=512, metavar="PX",
        help="reduce contents and styles to this short side where theirs is longer; 0 keeps them (default: 512)",
    )  # fmt: skip
    parser.add_argument("--show", type=whole, default=8, metavar="N", help="pairs to show as pictures (default: 8)")
    parser.add_argument("--fresh", action="store_true", help="measure again what an earlier run into REPORT_DIR did")
    parser.add_argument("--device", default="auto", help="on_result adaattn info (default: the best there is)")
    parser.add_argument("--precision", default="auto", choices=PRECISIONS, help="of the models; auto is float32")


def _add_judges(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--vgg", required=True, metavar="FILE|torchvision", help="VGG-19")
    group.add_argument(
        "--judge", metavar="FILE|torchvision", help="VGG-16, which training never sees: for style, Gram, CFSD, LPIPS"
    )
    group.add_argument(
        "--lpips",
        metavar="FILE",
        help="LPIPS v0.1 heads for VGG-16 (default: those of the lpips package, if installed)",
    )
    group.add_argument("--artfid", action="store_true", help="ArtFID, too, by the art-fid package: slow, many files")


def run(args: argparse.Namespace) -> int:
    started = time.strftime("%Y-%m-%d %H:%M")
    folders = [_folder(text) for text in args.pictures]
    contents, styles = (find_images(patterns, without=args.output) for patterns in (args.content, args.style))
    pairs = choose_pairs(contents, styles, folders, args.pairs, args.seed)
    names = args.model or ([] if folders else [BUILT_IN])
    painters = [painter for text in names for painter in _painters(text, args)]
    subjects: list[Method] = [*painters, *folders, IdentityBaseline(), StyleCopyBaseline()]
    _check_names(subjects)
    panel = load_panel(args)
    make_folder(args.output)
    evaluation = Evaluation(panel, subjects, pairs, Records.open(args.output / "results.jsonl", args.fresh), args.size)
    gallery = Gallery(args.output / "thumbnails", pairs, min(args.show, len(pairs)))
    evaluation.on_result = partial(gallery.see, evaluation)
    bar = progress_bar(len(pairs) * len(subjects), unit="picture")
    try:
        with bar:
            evaluation.run(bar)
    except KeyboardInterrupt:
        print(f"adaattn: stopped; what is measured is in {args.output}. The same command goes on.", file=sys.stderr)
        return INTERRUPTED
    art_fids = _art_fids(evaluation, args) if args.artfid else {}
    report = summarize(evaluation, args.seed, _peaks(evaluation), art_fids, _settings(args, started))
    _write(args.output / "report.json", json.dumps(report, indent=1) + "\n")
    _write(args.output / "report.html", render(report, gallery.strips(evaluation, report["metrics"])))
    _tell(report, args.output)
    return 0


def _tell(report: dict[str, Any], folder: Path) -> None:
    print(table(report))
    print(f"{len(report['pairs'])} pairs; ± is half the width of the {report['intervals']['confidence']:.0%} interval")
    for reason, pairs in report["broken"].items():
        print(f"left out {pairs} pair(s): {reason}")
    for line in not_measured(report):
        print(line)
    print(folder / "report.html")


# Judges


def load_panel(args: argparse.Namespace) -> MetricSuite:
    """The judges that the options name; those that need not be there and are not say why."""
    device = pick_device(args.device)
    missing = {} if args.artfid else {"artfid": "not asked for; add --artfid"}
    vgg19 = ready_judge(load_vgg(args.vgg), device)
    vgg16 = heads = alex = None
    if args.judge:
        vgg16 = ready_judge(load_vgg16(args.judge), device)
    else:
        missing |= dict.fromkeys(("style_vgg16", "gram", "cfsd", "lpips_vgg"), "it needs --judge FILE or torchvision")
    try:
        if args.judge or args.lpips:
            heads = load_lpips_heads(args.lpips) if args.lpips else package_lpips_heads()
            heads = {level: head.to(device) for level, head in heads.items()}
    except CheckpointError as error:
        if args.lpips:
            raise
        missing["lpips_vgg"] = f"{error}, or name its heads with --lpips FILE"
    try:
        alex = load_lpips_alex(device)
    except CheckpointError as error:
        missing["lpips_alex"] = str(error)
    return MetricSuite(vgg19, vgg16, heads if vgg16 else None, alex, missing)


# Rows


def _painters(text: str, args: argparse.Namespace) -> list[ModelMethod]:
    """The row that a --model asks for, and its ablations after it."""
    label, name, options = _parse_model(text)
    first = _painter(label, name, options, args)
    if not args.ablate:
        return [first]
    levels = first.model.config.levels
    changes: list[tuple[str, dict[str, Any]]] = [
        ("AdaIN statistics", {"levels": ()}), ("sampled", {"attention": "sampled"}),
    ]  # fmt: skip
    if len(levels) > 1:
        changes.append((f"{levels[0]} alone", {"levels": levels[:1]}))
    return [first, *(_painter(f"{label}, {what}", name, options | change, args) for what, change in changes)]


def _painter(label: str, name: str, options: dict[str, Any], args: argparse.Namespace) -> ModelMethod:
    path = find_model(name)
    model = open_model(argparse.Namespace(model=name, device=args.device, precision=args.precision))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    if "levels" in options:
        levels = options["levels"]
        options = {key: value for key, value in options.items() if key != "levels"}
        model, digest = attending_at(model, levels), f"{digest} at {'+'.join(levels) or 'none'}"
    return ModelMethod(label, model, name, digest, **options)


def _parse_model(text: str) -> tuple[str, str, dict[str, Any]]:
    """Label, name or file, and options of the painting.

    >>> _parse_model("soft=compact,temperature=2")
    ('soft', 'compact', {'temperature': 2.0})
    >>> _parse_model("runs/mine/model.safetensors")
    ('mine', 'runs/mine/model.safetensors', {})
    """
    if Path(text).is_file():
        return _label(text), text, {}
    head, *settings = text.split(",")
    label, name = _parse_label(head)
    kinds = {"attention": _attention, "temperature": positive, "strength": unit, "levels": _levels}
    options = {}
    for setting in settings:
        key, _, value = setting.partition("=")
        if key not in kinds:
            raise ValueError(f"--model {text} sets {key!r}; known are {', '.join(kinds)}")
        try:
            options[key] = kinds[key](value)
        except ArgumentTypeError as error:
            raise ValueError(f"--model {text}: {key}: {error}") from None
    return label or _label(name), name, options


def _folder(text: str) -> ExistingImages:
    label, folder = _parse_label(text)
    return finished_in(label or Path(folder).name, folder)


def _parse_label(text: str) -> tuple[str, str]:
    label, equals, name = text.partition("=")
    return (label, name) if equals and not Path(text).exists() else ("", text)


def _label(name: str) -> str:
    """A file's name, or its folder's where every run calls it model.safetensors."""
    path = Path(name)
    return path.parent.name if path.stem == "model" and path.parent.name else path.stem


def _attention(text: str) -> str:
    if text not in ATTENTIONS:
        raise ArgumentTypeError(f"{text!r} is unknown; known are {', '.join(ATTENTIONS)}")
    return text


def _levels(text: str) -> tuple[str, ...]:
    return () if text == "none" else tuple(text.split("+"))


def _check_names(subjects: list[Method]) -> None:
    names = [subject.name for subject in subjects]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two rows would be called {name!r}. Give one another name with LABEL=.")


# Numbers of a row as a whole


def _peaks(evaluation: Evaluation) -> dict[str, float | None]:
    """Peak memory of each model on the largest of the judged contents; measured once and kept in the records."""
    complete = evaluation.complete()
    peaks: dict[str, float | None] = {}
    for index, subject in enumerate(evaluation.subjects):
        if isinstance(subject, ModelMethod) and complete:
            pair = max(complete, key=lambda pair: complete[pair][index]["pixels"])  # noqa: B023 (used at once)
            key = "peak " + evaluation.key(subject, pair)
            if key not in evaluation.records.found:
                evaluation.records.add({"key": key, "peak_gib": peak_memory_gib(subject, pair, evaluation.size)})
            peaks[subject.name] = evaluation.records.found[key]["peak_gib"]
    return peaks


def _art_fids(evaluation: Evaluation, args: argparse.Namespace) -> dict[str, float]:
    """ArtFID of each row; where it cannot be had, the panel's `missing` says why."""
    device = "cuda" if pick_device(args.device).type == "cuda" else "cpu"
    found = {}
    try:
        for subject in evaluation.subjects:
            keys = [evaluation.key(subject, pair) for pair in evaluation.complete()]
            key = "artfid " + hashlib.sha256("".join(keys).encode()).hexdigest()[:20]
            if key not in evaluation.records.found:
                pictures = (
                    (subject.make(pair, sources).picture, *sources)
                    for pair in evaluation.complete()
                    for sources in [evaluation.sources(pair)]
                )
                evaluation.records.add({"key": key, "artfid": art_fid(pictures, args.output, device)})
            found[subject.name] = evaluation.records.found[key]["artfid"]
    except ArtFIDError as error:
        evaluation.panel.missing["artfid"] = str(error)
        return {}
    return found


# The report


def _settings(args: argparse.Namespace, started: str) -> dict[str, Any]:
    named = ("content", "style", "size", "seed", "vgg", "judge", "lpips", "device", "precision")
    told = {name: getattr(args, name) for name in named if getattr(args, name) not in (None, "")}
    device = str(pick_device(args.device))
    return {
        "made": f"{started}, adaattn {__version__}",
        **told,
        "device": device,
        "threads": torch.get_num_threads(),
    }


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")  # names of files may be anything
