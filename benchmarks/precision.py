"""Error of half precision by part of the model: the largest and the mean difference from float32 in 1/255.

    python -m benchmarks.precision [--weights FILE] [--dtype bfloat16] [--size 512] [-o precision.json]

Each part of the model is rounded alone: weights, inputs and results of its convolutions, which otherwise compute in
float32, as processors with native half precision do. The last row is the model of `load_model(dtype=...)` as this
machine runs it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adaattn_core import load_image, load_model, stylize
from adaattn_core.models.model import StyleTransferModel
from adaattn_core.ops.resize import resize_image

EXAMPLES = Path(__file__).parents[1] / "examples"
CONTENTS, STYLES = ("coffee", "rocket", "chelsea"), ("great_wave", "auvers")
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.precision", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--weights", default="compact", metavar="FILE")
    parser.add_argument("--dtype", default="bfloat16", choices=DTYPES)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE")
    args = parser.parse_args(argv)
    names, dtype = dict.fromkeys((*CONTENTS, *STYLES)), DTYPES[args.dtype]
    pictures = {name: resize_image(load_image(EXAMPLES / f"{name}.jpg"), size=(args.size, args.size)) for name in names}
    pairs = [(pictures[content], pictures[style]) for content, style in itertools.product(CONTENTS, STYLES)]
    exact = [stylize(load_model(args.weights), *pair) for pair in pairs]
    rows: list[dict[str, Any]] = []

    def compare(part: str, model: StyleTransferModel) -> None:
        errors = [255 * (stylize(model, *pair) - reference).abs() for pair, reference in zip(pairs, exact, strict=True)]
        largest = max(float(error.max()) for error in errors)
        mean = sum(float(error.mean()) for error in errors) / len(errors)
        rows.append({"part": part, "largest": largest, "mean": mean})
        print(f"{part:48} largest {largest:6.2f} mean {mean:.3f}", flush=True)

    for part in parts(load_model(args.weights)):
        model = load_model(args.weights)
        round_convolutions(parts(model)[part], dtype)
        compare(part, model)
    compare(f"load_model(dtype=torch.{args.dtype})", load_model(args.weights, dtype=dtype))
    if args.output:
        results = {"torch": torch.__version__, "size": args.size, "dtype": args.dtype, "rows": rows}
        args.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return 0


def parts(model: StyleTransferModel) -> dict[str, list[nn.Conv2d]]:
    """The convolutions of the model by part, in the order of the data flow."""
    attention = model.fusion.attention
    merge: list[nn.Conv2d] = [model.fusion.merge_conv] if len(model.config.levels) > 1 else []
    decoder = [module for module in model.decoder.modules() if isinstance(module, nn.Conv2d)]
    convolutions = {
        "everything": [module for module in model.modules() if isinstance(module, nn.Conv2d)],
        "encoder": [module for module in model.encoder.modules() if isinstance(module, nn.Conv2d)],
        "queries and keys": _named(attention, ("query_proj", "key_proj")),
        "values": _named(attention, ("value_proj",)),
        "merge and decoder, but the last convolution": [*merge, *decoder[:-1]],
        "merge": merge,
    }
    convolutions.update({f"decoder's convolution {index}": [conv] for index, conv in enumerate(decoder[:-1], 1)})
    return convolutions


def _named(module: nn.Module, names: Sequence[str]) -> list[nn.Conv2d]:
    convolutions = ((name, conv) for name, conv in module.named_modules() if isinstance(conv, nn.Conv2d))
    return [conv for name, conv in convolutions if name.rpartition(".")[2] in names]


def round_convolutions(convs: Iterable[nn.Conv2d], dtype: torch.dtype) -> None:
    """Round weights, inputs and results of convolutions to `dtype`; they stay float32 tensors."""

    def rounded(x: Tensor) -> Tensor:
        return x.to(dtype).to(x.dtype)

    for conv in convs:
        with torch.no_grad():
            for parameter in conv.parameters():
                parameter.copy_(rounded(parameter))
        conv.register_forward_pre_hook(lambda _, inputs: rounded(inputs[0]))
        conv.register_forward_hook(lambda _, inputs, result: rounded(result))


if __name__ == "__main__":
    sys.exit(main())
