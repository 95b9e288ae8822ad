"""Seconds and peak memory of exported models in ONNX Runtime on the CPU.

    python -m benchmarks.onnx_memory model.onnx --size 1024
    python -m benchmarks.onnx_memory model-style.onnx model-content.onnx --size 1024 --style-size 512

Content and style are squares of random numbers: time and memory do not depend on what a picture shows. Each file runs
in a process of its own, whose peak is given, on Linux and macOS.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import onnxruntime


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", help="one file, or that of the style and that of the contents")
    parser.add_argument("--size", type=int, default=1024, help="side of the content in pixels (default: %(default)s)")
    parser.add_argument("--style-size", type=int, help="side of the style in pixels (default: that of the content)")
    parser.add_argument("--threads", type=int, default=0, help="0 takes all cores (default: %(default)s)")
    args = parser.parse_args(argv)
    sides = {"content": args.size, "style": args.style_size or args.size}
    with tempfile.TemporaryDirectory() as folder:
        for file in args.files:
            with get_context("spawn").Pool(1) as pool:
                seconds, gib = pool.apply(measure, (file, sides, args.threads, Path(folder, "outputs.npz")))
            print(f"{file}  {seconds:.1f} s  peak {gib:.2f} GiB", flush=True)
    return 0


def measure(file: str, sides: dict[str, int], threads: int, outputs: Path) -> tuple[float, float]:
    """Seconds of a run and peak GiB of this process; inputs are random pictures, and outputs of the file before."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    values = {name: random.random((1, 3, side, side), dtype=np.float32) for name, side in sides.items()}
    if outputs.exists():
        with np.load(outputs) as arrays:
            values |= dict(arrays)
    names = [one.name for one in session.get_outputs()]
    started = time.perf_counter()
    results = session.run(names, {one.name: values[one.name] for one in session.get_inputs()})
    seconds, peak = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    np.savez(outputs, **dict(zip(names, results, strict=True)))
    return seconds, peak / 2 ** (30 if sys.platform == "darwin" else 20)


if __name__ == "__main__":
    sys.exit(main())
