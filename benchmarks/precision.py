"""How far half precision moves the picture, part by part: the largest and the mean difference from float32 in 1/255.

    python -m benchmarks.precision [--weights FILE] [--dtype bfloat16] [--size 512] [-o precision.json]

Rounded by itself is each part of the model: weights, inputs and results of its convolutions, which compute in float32
otherwise, as a processor with native half precision does. The last row is what `load_model(dtype=...)` makes, painted
as this machine does it.
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
        away = [255 * (stylize(model, *pair) - wanted).abs() for pair, wanted in zip(pairs, exact, strict=True)]
        largest, mean = max(float(one.max()) for one in away), sum(float(one.mean()) for one in away) / len(away)
        rows.append({"part": part, "largest": largest, "mean": mean})
        print(f"{part:48} largest {largest:6.2f} mean {mean:.3f}", flush=True)

    for part in parts(load_model(args.weights)):
        model = load_model(args.weights)
        rounded(parts(model)[part], dtype)
        compare(part, model)
    compare(f"load_model(dtype=torch.{args.dtype}), painted", load_model(args.weights, dtype=dtype))
    if args.output:
        found = {"torch": torch.__version__, "size": args.size, "dtype": args.dtype, "rows": rows}
        args.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


def parts(model: StyleTransferModel) -> dict[str, list[nn.Conv2d]]:
    """Convolutions of the model by what they are for, in the order of the picture's way through them."""
    attention = model.fusion.attention
    merge: list[nn.Conv2d] = [model.fusion.merge_conv] if len(model.config.levels) > 1 else []
    decoder = [module for module in model.decoder.modules() if isinstance(module, nn.Conv2d)]
    found = {
        "everything": [module for module in model.modules() if isinstance(module, nn.Conv2d)],
        "encoder": [module for module in model.encoder.modules() if isinstance(module, nn.Conv2d)],
        "queries and keys": _named(attention, ("query_proj", "key_proj")),
        "values": _named(attention, ("value_proj",)),
        "merge and decoder, but the last convolution": [*merge, *decoder[:-1]],
        "merge": merge,
    }
    found.update({f"decoder's convolution {index}": [conv] for index, conv in enumerate(decoder[:-1], 1)})
    return found


def _named(module: nn.Module, names: Sequence[str]) -> list[nn.Conv2d]:
    found = ((name, one) for name, one in module.named_modules() if isinstance(one, nn.Conv2d))
    return [one for name, one in found if name.rpartition(".")[2] in names]


def rounded(convs: Iterable[nn.Conv2d], dtype: torch.dtype) -> None:
    """Weights, inputs and results rounded to `dtype`, and kept in float32."""

    def near(x: Tensor) -> Tensor:
        return x.to(dtype).to(x.dtype)

    for conv in convs:
        with torch.no_grad():
            for parameter in conv.parameters():
                parameter.copy_(near(parameter))
        conv.register_forward_pre_hook(lambda _, inputs: near(inputs[0]))
        conv.register_forward_hook(lambda _, inputs, result: near(result))


if __name__ == "__main__":
    sys.exit(main())
