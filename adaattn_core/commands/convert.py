"""Convert the published AdaAttN checkpoints to one model file."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from ..checkpoints.model_file import model_folders, save_model
from ..checkpoints.published import convert_published
from .shared.paths import check_folder

METADATA = {"trained_on": "published AdaAttN checkpoints", "license": "Apache-2.0"}
EXAMPLES = """\
example:
  adaattn convert checkpoints/AdaAttN/ --encoder vgg_normalised.pth -o adaattn_published.safetensors
The layout (image, region mask or video) is recognised from the content of the files.
"""
PRECISIONS = {"float32": torch.float32, "float16": torch.float16}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument("folder", metavar="CHECKPOINT_DIR", help="folder with the published latest_net_*.pth files")
    parser.add_argument(
        "--encoder", required=True, metavar="FILE", help="the vgg_normalised.pth file that belongs to the checkpoints"
    )
    parser.add_argument("-o", "--output", required=True, metavar="MODEL", help="file to write, ending in .safetensors")
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="float32",
        help="data type of the stored weights; float16 halves the size of the file (default: %(default)s)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    output = Path(args.output)
    if output.suffix != ".safetensors":
        raise ValueError(f"{output} does not end in .safetensors, as a model file has to. Rename the output.")
    if output.parent in model_folders():  # where load_model("published") looks for the file: this folder may be created
        output.parent.mkdir(parents=True, exist_ok=True)
    check_folder(output.parent)
    model = convert_published(args.folder, args.encoder)
    save_model(model, output, dtype=PRECISIONS[args.precision], metadata=METADATA)
    kind = "video" if len(model.config.levels) == 1 else "image"
    millions = sum(weight.numel() for weight in model.parameters()) / 1e6
    print(f"{output}  {kind} model  {millions:.1f} M parameters  {output.stat().st_size / 1e6:.1f} MB")
    return 0
