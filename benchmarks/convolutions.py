"""Winograd's 3x3 convolutions beside PyTorch's: time and rounding error. `winograd.is_faster` rests on these numbers.

    python -m benchmarks.convolutions [--rows 64] [-o convolutions.json]

Both include the reflection padding and use the channels-last format. The rounding error is the largest difference from
float64 relative to the largest value. With MKL_ENABLE_INSTRUCTIONS=AVX2 ONEDNN_MAX_CPU_ISA=AVX2
ATEN_CPU_CAPABILITY=avx2 before the command, a processor with AVX-512 is measured as one without.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from adaattn_core.models.encoder import reflect_pad1
from adaattn_core.ops import winograd

SHAPES = ((32, 512), (64, 512), (64, 256), (96, 128), (128, 256), (256, 128), (512, 64))
"""(channels, columns) of the measured convolutions."""
REPEATS = 9


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.convolutions", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE")
    args = parser.parse_args(argv)
    rows = [compare(channels, args.rows, columns) for channels, columns in SHAPES]
    print("channels  columns  direct s  winograd s  ratio  rounding: direct, winograd")
    for row in rows:
        print(
            f"{row['channels']:8} {row['columns']:8}  {row['direct']:8.4f}  {row['winograd']:10.4f}  "
            f"{row['ratio']:5.2f}  {row['direct_error']:16.1e}, {row['winograd_error']:8.1e}"
        )
    if args.output:
        args.output.write_text(json.dumps({"rows": rows}, indent=2) + "\n", encoding="utf-8")
    return 0


@torch.inference_mode()
def compare(channels: int, height: int, width: int) -> dict[str, float]:
    """One row of the table; times are those of the fastest of REPEATS calls."""
    generator = torch.Generator().manual_seed(0)
    layout = torch.channels_last
    x = torch.randn(1, channels, height, width, generator=generator).relu().contiguous(memory_format=layout)
    weight = torch.randn(channels, channels, 3, 3, generator=generator).div(3 * channels**0.5)
    bias = torch.randn(channels, generator=generator)
    direct_weight = weight.contiguous(memory_format=layout)
    exact = F.conv2d(reflect_pad1(x.double()), weight.double(), bias.double())

    def error(result: Tensor) -> float:
        return float((result - exact).abs().max() / exact.abs().max())

    def direct() -> Tensor:
        return F.conv2d(reflect_pad1(x), direct_weight, bias)

    def fast() -> Tensor:
        return winograd.conv3x3(x, weight, bias)

    seconds = [_fastest(convolve) for convolve in (direct, fast)]
    return {
        "channels": channels, "columns": width, "direct": seconds[0], "winograd": seconds[1],
        "ratio": seconds[1] / seconds[0], "direct_error": error(direct()), "winograd_error": error(fast()),
    }  # fmt: skip


def _fastest(convolve: Callable[[], Tensor]) -> float:
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        convolve()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


if __name__ == "__main__":
    sys.exit(main())
