"""Export a model as ONNX files for programs without PyTorch."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..checkpoints.model_file import COMPACT, find_model, load_model
from ..checkpoints.tensor_file import read_metadata
from ..export.graph import PRECISIONS
from ..export.onnx_file import DEFAULT_OPSET, MAX_OPSET, MIN_OPSET, export_onnx, onnx_package, output_paths
from .shared.options import MODEL_HELP, integer
from .shared.paths import check_folder

EXAMPLES = """\
examples:
  adaattn export compact -o model.onnx                        (content, style) -> picture
  adaattn export base -o model.onnx --precision float16       half the size
  adaattn export compact -o model.onnx --split                model-style.onnx and model-content.onnx
The files are compared with PyTorch on six pictures before they are put in place.
Needs the packages onnx and onnxruntime: pip install "adaattn[onnx]".
"""
HANDED_ON = ("license", "trained_on")
"""Entries of a model file that its ONNX files have too."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument("model", nargs="?", default=COMPACT, metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="file to write, ending in .onnx")
    parser.add_argument(
        "--split", action="store_true",
        help="write two files, FILE-style.onnx and FILE-content.onnx: a style is encoded once for many contents",
    )  # fmt: skip
    parser.add_argument(
        "--precision", choices=PRECISIONS, default=PRECISIONS[0],
        help="of the weights in the file: float16 halves it, and the decoder computes in it; int8 quarters it, and "
        "changes the picture visibly (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--opset", type=opset, default=DEFAULT_OPSET, metavar="N",
        help=f"version of ONNX' operators, {MIN_OPSET} to {MAX_OPSET}; older runtimes need a lower one "
        "(default: %(default)s)",
    )  # fmt: skip


def opset(text: str) -> int:
    """The type of the value of --opset."""
    value = integer(text)
    if not MIN_OPSET <= value <= MAX_OPSET:
        raise argparse.ArgumentTypeError(f"{text} is out of range; it must be between {MIN_OPSET} and {MAX_OPSET}")
    return value


def run(args: argparse.Namespace) -> int:
    output = Path(args.output)
    output_paths(output, args.split)
    check_folder(output.parent)
    for package in ("onnx", "onnxruntime"):
        onnx_package(package)
    file = find_model(args.model)
    metadata = {name: value for name, value in read_metadata(file).items() if name in HANDED_ON}
    model = load_model(args.model)
    exported = export_onnx(
        model, output, precision=args.precision, opset=args.opset, split=args.split, metadata=metadata
    )
    largest, mean = exported.difference
    for path in exported.paths:
        print(f"{path}  {args.precision}  opset {args.opset}  {path.stat().st_size / 1e6:.1f} MB")
    print(f"differs from PyTorch by at most {largest:.2g}/255, on average by {mean:.2g}/255")
    return 0
