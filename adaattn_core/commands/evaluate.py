"""Judge models, and finished pictures of any other tool, on the same pairs."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import torch

from ..checkpoint import BUILT_IN, find_model
from ..devices import PRECISIONS, pick_device
from ..evaluate import (
    ContentUnchanged,
    Evaluation,
    Finished,
    Painter,
    Records,
    StyleCopied,
    Subject,
    choose_pairs,
    finished_in,
)
from ..images import find_images
from ..judges import load_lpips_heads, load_vgg16, ready_judge
from ..metrics import bootstrap_interval
from ..panel import METRICS, Panel
from ..progress import progress_bar
from ..published import load_vgg
from .options import open_model, side, whole

EXAMPLES = """\
examples:
  adaattn evaluate --content photos/ --style paintings/ --vgg torchvision -o report/
  adaattn evaluate --content photos/ --style paintings/ --vgg vgg.pth --judge vgg16.pth \\
      --model compact --model mine=runs/mine/model.safetensors --pictures other=results/ -o report/
Pictures of other tools are called CONTENT__STYLE.png (or .jpg, ...), after the names of their content and style.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument("--content", nargs="+", required=True, metavar="C", help="pictures, folders or globs")
    parser.add_argument("--style", nargs="+", required=True, metavar="S", help="pictures, folders or globs")
    parser.add_argument(
        "--model", action="append", default=[], metavar="NAME|FILE",
        help="a model to judge, LABEL=NAME|FILE to call it otherwise; again for more (default: compact)",
    )  # fmt: skip
    parser.add_argument(
        "--pictures", action="append", default=[], metavar="NAME=FOLDER",
        help="finished pictures to judge, called CONTENT__STYLE.*; again for more",
    )  # fmt: skip
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="REPORT_DIR", help="folder for the report")
    parser.add_argument("--vgg", required=True, metavar="FILE|torchvision", help="VGG-19 to judge with")
    parser.add_argument(
        "--judge", metavar="FILE|torchvision", help="VGG-16: a second judge, that no training here sees"
    )
    parser.add_argument("--lpips", metavar="FILE", help="LPIPS v0.1 heads for VGG-16; needs --judge")
    parser.add_argument("--pairs", type=whole, metavar="N", help="judge N pairs, drawn with --seed (default: all)")
    parser.add_argument(
        "--seed", type=whole, default=0, metavar="N", help="of the draw and of the intervals (default: 0)"
    )
    parser.add_argument(
        "--size", type=side, default=512, metavar="PX",
        help="reduce contents and styles to this short side where theirs is longer; 0 keeps them (default: 512)",
    )  # fmt: skip
    parser.add_argument("--fresh", action="store_true", help="forget what earlier runs measured")
    parser.add_argument("--device", default="auto", help="see adaattn info (default: the best there is)")
    parser.add_argument("--precision", default="auto", choices=PRECISIONS, help="of the models; auto is float32")


def run(args: argparse.Namespace) -> int:
    contents, styles = find_images(args.content), find_images(args.style)
    folders = [_folder(text) for text in args.pictures]
    pairs = choose_pairs(contents, styles, folders, args.pairs, args.seed)
    models = args.model or ([] if folders else [BUILT_IN])
    painters = [_painter(text, args) for text in models]
    panel = _panel(args)
    args.output.mkdir(exist_ok=True)
    subjects: list[Subject] = [*painters, *folders, ContentUnchanged(), StyleCopied()]
    evaluation = Evaluation(panel, subjects, pairs, Records.open(args.output / "results.jsonl", args.fresh), args.size)
    bar = progress_bar(len(pairs) * len(subjects), unit="picture")
    with bar:
        evaluation.run(bar)
    for name, reason in evaluation.broken.items():
        print(f"left out {name}: {reason}")
    print(_table(evaluation, args.seed))
    return 0


def _panel(args: argparse.Namespace) -> Panel:
    device = pick_device(args.device)
    missing = {"artfid": "not built yet", "lpips_alex": "not built yet"}
    vgg16 = heads = None
    if args.judge:
        vgg16 = ready_judge(load_vgg16(args.judge), device)
        if args.lpips:
            heads = {level: head.to(device) for level, head in load_lpips_heads(args.lpips).items()}
        else:
            missing["lpips_vgg"] = "needs --lpips FILE"
    else:
        missing |= dict.fromkeys(("style_vgg16", "gram", "cfsd", "lpips_vgg"), "needs --judge FILE or torchvision")
    vgg19 = ready_judge(load_vgg(args.vgg), device)
    return Panel(vgg19, vgg16, heads, None, missing)


def _painter(text: str, args: argparse.Namespace) -> Painter:
    label, name = _named(text)
    path = find_model(name)
    model = open_model(argparse.Namespace(model=name, device=args.device, precision=args.precision))
    return Painter(label, model, hashlib.sha256(path.read_bytes()).hexdigest()[:12])


def _folder(text: str) -> Finished:
    label, folder = _named(text)
    return finished_in(label, Path(folder))


def _named(text: str) -> tuple[str, str]:
    label, equals, name = text.partition("=")
    return (label, name) if equals and not Path(text).exists() else (text, text)


def _table(evaluation: Evaluation, seed: int) -> str:
    pairs, names = evaluation.complete_pairs(), evaluation.panel.metrics
    lines = [
        f"{len(pairs)} pairs",
        f"{'':22}" + "".join(f"{METRICS[name].title.replace('Content', 'Cont.'):>18}" for name in names),
    ]
    for subject in evaluation.subjects:
        rows = list(evaluation.rows(subject, pairs))
        values = torch.tensor([[row["values"][name] for name in names] for row in rows], dtype=torch.float64)
        low, high = bootstrap_interval(values, torch.Generator().manual_seed(seed))
        cells = [
            f"{m:.3f} {a:.3f}-{b:.3f}"
            for m, a, b in zip(values.mean(0).tolist(), low.tolist(), high.tolist(), strict=True)
        ]
        lines.append(f"{subject.name[:21]:22}" + "".join(f"{cell:>18}" for cell in cells))
    return "\n".join(lines)
