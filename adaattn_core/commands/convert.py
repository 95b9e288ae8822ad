"""Make one model file of the published AdaAttN checkpoints."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from ..checkpoints.model_file import model_folders, save_model
from ..checkpoints.published import convert_published
from .options import check_folder

ABOUT = {"trained_on": "published AdaAttN checkpoints", "license": "Apache-2.0"}
EXAMPLES = """\
example:
  adaattn convert checkpoints/AdaAttN/ --encoder vgg_normalised.pth -o adaattn_base.safetensors
The image, region-mask and video layouts are told apart by what is in the files.
"""
PRECISIONS = {"float32": torch.float32, "float16": torch.float16}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument("folder", metavar="CHECKPOINT_DIR", help="folder with latest_net_*.pth")
    parser.add_argument("--encoder", required=True, metavar="FILE", help="the vgg_normalised.pth that belongs to them")
    parser.add_argument("-o", "--output", required=True, metavar="MODEL", help="file to write, ending in .safetensors")
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="float32", help="float16 makes half the file (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    output = Path(args.output)
    if output.suffix != ".safetensors":
        raise ValueError(f"{output} does not end in .safetensors, which a model file has to. Rename the output.")
    if output.parent in model_folders():  # where load_model("base") looks: we may make that one
        output.parent.mkdir(parents=True, exist_ok=True)
    check_folder(output.parent)
    model = convert_published(args.folder, args.encoder)
    save_model(model, output, dtype=PRECISIONS[args.precision], metadata=ABOUT)
    kind = "video" if len(model.config.levels) == 1 else "image"
    millions = sum(weight.numel() for weight in model.parameters()) / 1e6
    print(f"{output}  {kind} model  {millions:.1f} M parameters  {output.stat().st_size / 1e6:.1f} MB")
    return 0
