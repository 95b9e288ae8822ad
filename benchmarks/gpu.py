"""What a GPU makes of it: seconds beside the floor, frames a second, peak memory, and a trace searched for waits.

    python -m benchmarks.gpu [--model compact|FILE] [--precision float16] [-o gpu.json] [--trace trace.json]

Without --model, the full-size architecture with random weights: on a GPU every pair of positions is computed, so that
the values of weights do not matter. The floor is the counted arithmetic at the rate that this GPU reaches in a large
matrix product, or the traffic of the weights and pictures at the rate of a large copy, whichever is longer.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from adaattn_core import StyleTransferModel, encode_style, load_model, stylize
from adaattn_core.benchmarking.inference import random_base
from adaattn_core.benchmarking.scaling import flops
from adaattn_core.checkpoints.model_file import prepare_for_inference
from adaattn_core.inference.stages import clamp_pictures, decode, encode, transfer
from adaattn_core.models.fusion import StyleFeatures

WAITS = ("aten::item", "aten::_local_scalar_dense", "aten::is_nonzero", "aten::nonzero", "cudaStreamSynchronize",
         "cudaDeviceSynchronize", "cudaMemcpyAsync DtoH", "Memcpy DtoH")  # fmt: skip
"""Events of a trace at which the processor waits for the GPU."""
MEMORY_SIZES = ((512, 512), (1024, 1024), (1080, 1920), (2048, 2048), (2160, 3840))
STYLE_SIDE = 512


class Rates(NamedTuple):
    """What the device reaches: operations a second in a precision and in float32, bytes a second in a copy."""

    half: float
    full: float
    copy: float


def main(argv: Sequence[str] | None = None) -> int:
    args = _arguments(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        print(
            "this benchmark needs a GPU that torch can use, and there is none. Install a CUDA build of torch on a "
            "machine with one; for processors there is: adaattn bench",
            file=sys.stderr,
        )
        return 2
    device, dtype = torch.device(args.device), getattr(torch, args.precision)
    model = _model(args.model, device, dtype)
    rates = measured_rates(device, dtype, args.side)
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "precision": args.precision,
        "rates": rates._asdict(),
        "speed": speed(model, device, rates, args.side, args.repeats),
        "frames": frames(model, device, args.frame, args.repeats),
        "memory": [peak_memory(model, device, size) for size in args.memory_sizes],
        "waits": waits(model, device, args.side, args.trace),
    }
    print(json.dumps(found, indent=2))
    if args.output:
        args.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", metavar="NAME|FILE", help="default: full size, random weights")
    parser.add_argument("--precision", default="float16", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--device", default="cuda", help="another one, such as cpu, only tries the script out")
    parser.add_argument("--side", type=int, default=512, help="of the pictures that are timed")
    parser.add_argument("--frame", type=_size, default=(1080, 1920), metavar="HxW")
    parser.add_argument("--memory-sizes", type=lambda text: [_size(one) for one in text.split(",")],
                        default=list(MEMORY_SIZES), metavar="HxW,HxW")  # fmt: skip
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="the numbers as JSON")
    parser.add_argument("--trace", type=Path, metavar="FILE", help="the trace, for chrome://tracing or Perfetto")
    return parser.parse_args(argv)


def _size(text: str) -> tuple[int, int]:
    height, width = text.split("x")
    return int(height), int(width)


def _model(name: str | None, device: torch.device, dtype: torch.dtype) -> StyleTransferModel:
    if name:
        return load_model(name, device=device, dtype=dtype)
    return prepare_for_inference(random_base().set_precision(dtype), device)


def speed(model: StyleTransferModel, device: torch.device, rates: Rates, side: int, repeats: int) -> dict[str, float]:
    """Milliseconds of one picture in a style of its size, with and without the style's encoding, beside the floor."""
    content, style = _picture(device, (side, side), 0), _picture(device, (side, side), 1)
    cached = encode_style(model, style)
    both = milliseconds(lambda: stylize(model, content, style), device, repeats)
    alone = milliseconds(lambda: stylize(model, content, cached), device, repeats)
    floor = floor_milliseconds(model, rates, side)
    return {
        "side": side,
        "milliseconds": both,
        "milliseconds_style_cached": alone,
        "pictures_a_second_style_cached": 1000 / alone,
        "floor_milliseconds": floor,
        "times_the_floor": both / floor,
    }


def floor_milliseconds(model: StyleTransferModel, rates: Rates, side: int) -> float:
    """At least what the arithmetic takes, convolutions at the lower precision's rate, attention at float32's; and at
    least what it takes to read the weights and the pictures and to write the result."""
    counted = flops(model.config, side)
    arithmetic = counted.convolutions / rates.half + counted.attention / rates.full
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    return 1000 * max(arithmetic, (weights + 3 * 4 * 3 * side * side) / rates.copy)


def frames(model: StyleTransferModel, device: torch.device, size: tuple[int, int], repeats: int) -> dict[str, Any]:
    """A clip in one style, frame after frame."""
    style = encode_style(model, _picture(device, (min(STYLE_SIDE, size[0]),) * 2, 1))
    frame = _picture(device, size, 0)
    each = milliseconds(lambda: stylize(model, frame, style), device, repeats)
    return {"size": list(size), "milliseconds": each, "frames_a_second": 1000 / each}


def peak_memory(model: StyleTransferModel, device: torch.device, size: tuple[int, int]) -> dict[str, Any]:
    """GiB allocated at the most, weights and pictures included; None where the device does not tell."""
    style = encode_style(model, _picture(device, (min(STYLE_SIDE, size[0]),) * 2, 1))
    content = _picture(device, size, 0)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    stylize(model, content, style)
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None
    return {"size": list(size), "peak_gib": peak}


def waits(model: StyleTransferModel, device: torch.device, side: int, trace: Path | None = None) -> list[str]:
    """Events between a picture that is checked and its result at which the processor waits for the device; none is
    what is wanted. Writes the trace to a file, if one is named."""
    content, style = _picture(device, (side, side), 0), encode_style(model, _picture(device, (side, side), 1))
    make_picture(model, content, style)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities) as profiler:
        make_picture(model, content, style)
    if trace:
        profiler.export_chrome_trace(str(trace))
    names = {event.name for event in profiler.events() or ()}
    return sorted(name for name in names if name.startswith(WAITS))


def make_picture(model: StyleTransferModel, content: Tensor, style: StyleFeatures) -> Tensor:
    """What `stylize` does after it has checked its arguments (where one look at the picture's values is a wait)."""
    content = clamp_pictures(content)
    features = encode(model.encoder, content, model.config.levels)
    return decode(model.decoder, transfer(model.fusion, features, content, [style]))


def milliseconds(call: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Of one call in a row of them, after two that are not timed."""
    for _ in range(2):
        call()
    _wait(device)
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    _wait(device)
    return 1000 * (time.perf_counter() - start) / repeats


def measured_rates(device: torch.device, dtype: torch.dtype, side: int) -> Rates:
    """Of square matrix products, 16 times as wide as the pictures' side at the most 8192, and of copying as much."""
    width = min(8192, 16 * side)
    operations = 2.0 * width**3

    def product(kind: torch.dtype) -> float:
        one = torch.ones(width, width, device=device, dtype=kind)
        return operations / (milliseconds(lambda: one @ one, device, 3) / 1000)

    one = torch.ones(width, width, device=device)
    copied = torch.empty_like(one)
    moved = 2.0 * one.numel() * one.element_size()
    return Rates(
        product(dtype), product(torch.float32), moved / (milliseconds(lambda: copied.copy_(one), device, 3) / 1000)
    )


def _picture(device: torch.device, size: tuple[int, int], seed: int) -> Tensor:
    return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(seed)).to(device)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    sys.exit(main())
