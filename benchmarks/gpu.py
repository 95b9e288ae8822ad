"""Measurements on a GPU: time beside a lower bound, frames per second, peak memory, and synchronisations in a trace.

    python -m benchmarks.gpu [--model compact|FILE] [--precision float16] [-o gpu.json] [--trace trace.json]

Without --model, the full-size architecture has random weights: on a GPU every pair of positions is computed, so the
values of the weights do not matter. The lower bound ("floor") is the time of the counted operations at the rate of a
large matrix product on this GPU, or that of reading weights and pictures at the rate of a large copy, if longer.
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
from adaattn_core.benchmarking.inference import random_published
from adaattn_core.benchmarking.scaling import flops
from adaattn_core.checkpoints.model_file import prepare_for_inference
from adaattn_core.inference.stages import clamp_pictures, decode, encode, transfer
from adaattn_core.models.fusion import StyleFeatures

WAITS = ("aten::item", "aten::_local_scalar_dense", "aten::is_nonzero", "aten::nonzero", "cudaStreamSynchronize",
         "cudaDeviceSynchronize", "cudaMemcpyAsync DtoH", "Memcpy DtoH")  # fmt: skip
"""Names of the profiler's events at which the processor waits for the GPU."""
MEMORY_SIZES = ((512, 512), (1024, 1024), (1080, 1920), (2048, 2048), (2160, 3840))
STYLE_SIDE = 512


class Rates(NamedTuple):
    """Rates of the device: operations per second in the chosen precision and in float32, bytes per second of a copy."""

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
    rates = measure_rates(device, dtype, args.side)
    results: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "precision": args.precision,
        "rates": rates._asdict(),
        "speed": speed(model, device, rates, args.side, args.repeats),
        "frames": frames(model, device, args.frame, args.repeats),
        "memory": [peak_memory(model, device, size) for size in args.memory_sizes],
        "waits": waits(model, device, args.side, args.trace),
    }
    print(json.dumps(results, indent=2))
    if args.output:
        args.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", metavar="NAME|FILE", help="default: full size, random weights")
    parser.add_argument("--precision", default="float16", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--device", default="cuda", help="any other device, such as cpu, only tests the script")
    parser.add_argument("--side", type=int, default=512, help="of the pictures that are timed")
    parser.add_argument("--frame", type=_size, default=(1080, 1920), metavar="HxW")
    parser.add_argument("--memory-sizes", type=lambda text: [_size(size) for size in text.split(",")],
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
    return prepare_for_inference(random_published().set_precision(dtype), device)


def speed(model: StyleTransferModel, device: torch.device, rates: Rates, side: int, repeats: int) -> dict[str, float]:
    """Milliseconds per picture with and without encoding a style of the same size, beside the lower bound."""
    content, style = _picture(device, (side, side), 0), _picture(device, (side, side), 1)
    cached = encode_style(model, style)
    with_style = milliseconds(lambda: stylize(model, content, style), device, repeats)
    style_cached = milliseconds(lambda: stylize(model, content, cached), device, repeats)
    floor = floor_milliseconds(model, rates, side)
    return {
        "side": side,
        "milliseconds": with_style,
        "milliseconds_style_cached": style_cached,
        "pictures_a_second_style_cached": 1000 / style_cached,
        "floor_milliseconds": floor,
        "times_the_floor": with_style / floor,
    }


def floor_milliseconds(model: StyleTransferModel, rates: Rates, side: int) -> float:
    """Lower bound of the time of one picture.

    Either the operations, convolutions at the rate of the chosen precision and attention at that of float32, or the
    reading of weights and pictures and the writing of the result, whichever takes longer.
    """
    counted = flops(model.config, side)
    arithmetic = counted.convolutions / rates.half + counted.attention / rates.full
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    return 1000 * max(arithmetic, (weights + 3 * 4 * 3 * side * side) / rates.copy)


def frames(model: StyleTransferModel, device: torch.device, size: tuple[int, int], repeats: int) -> dict[str, Any]:
    """Time per frame of a clip in one style."""
    style = encode_style(model, _picture(device, (min(STYLE_SIDE, size[0]),) * 2, 1))
    frame = _picture(device, size, 0)
    per_frame = milliseconds(lambda: stylize(model, frame, style), device, repeats)
    return {"size": list(size), "milliseconds": per_frame, "frames_a_second": 1000 / per_frame}


def peak_memory(model: StyleTransferModel, device: torch.device, size: tuple[int, int]) -> dict[str, Any]:
    """Peak of allocated GiB with weights and pictures; None where the device does not report it."""
    style = encode_style(model, _picture(device, (min(STYLE_SIDE, size[0]),) * 2, 1))
    content = _picture(device, size, 0)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    stylize(model, content, style)
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None
    return {"size": list(size), "peak_gib": peak}


def waits(model: StyleTransferModel, device: torch.device, side: int, trace: Path | None = None) -> list[str]:
    """Names of events between a checked picture and its result at which the processor waits for the device.

    The list should be empty. Writes the profiler's trace to a file, if one is named.
    """
    content, style = _picture(device, (side, side), 0), encode_style(model, _picture(device, (side, side), 1))
    stylize_checked(model, content, style)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities) as profiler:
        stylize_checked(model, content, style)
    if trace:
        profiler.export_chrome_trace(str(trace))
    names = {event.name for event in profiler.events() or ()}
    return sorted(name for name in names if name.startswith(WAITS))


def stylize_checked(model: StyleTransferModel, content: Tensor, style: StyleFeatures) -> Tensor:
    """The part of `stylize` after the check of its arguments, which waits for the device once."""
    content = clamp_pictures(content)
    features = encode(model.encoder, content, model.config.levels)
    return decode(model.decoder, transfer(model.fusion, features, content, [style]))


def milliseconds(call: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Mean milliseconds of `repeats` consecutive calls, after two calls that are not timed."""
    for _ in range(2):
        call()
    _wait(device)
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    _wait(device)
    return 1000 * (time.perf_counter() - start) / repeats


def measure_rates(device: torch.device, dtype: torch.dtype, side: int) -> Rates:
    """Rates of a product of square matrices and of a copy of one; their width is 16 times `side`, at most 8192."""
    width = min(8192, 16 * side)
    operations = 2.0 * width**3

    def product_rate(dtype: torch.dtype) -> float:
        matrix = torch.ones(width, width, device=device, dtype=dtype)
        return operations / (milliseconds(lambda: matrix @ matrix, device, 3) / 1000)

    source = torch.ones(width, width, device=device)
    target = torch.empty_like(source)
    copied_bytes = 2.0 * source.numel() * source.element_size()
    copy_rate = copied_bytes / (milliseconds(lambda: target.copy_(source), device, 3) / 1000)
    return Rates(product_rate(dtype), product_rate(torch.float32), copy_rate)


def _picture(device: torch.device, size: tuple[int, int], seed: int) -> Tensor:
    return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(seed)).to(device)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    sys.exit(main())
