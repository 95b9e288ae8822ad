"""Seconds and peak memory of exported models in ONNX Runtime on the CPU.

    python -m benchmarks.onnx_memory model.onnx --size 1024
    python -m benchmarks.onnx_memory model-style.onnx model-content.onnx --size 1024 --style-size 512

Content and style are squares of random numbers: time and memory do not depend on what a picture shows. The peak is that
of the process, on Linux and macOS.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time

import numpy as np
import onnxruntime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", help="one file, or that of the style and that of the contents")
    parser.add_argument("--size", type=int, default=1024, help="side of the content in pixels (default: %(default)s)")
    parser.add_argument("--style-size", type=int, help="side of the style in pixels (default: that of the content)")
    parser.add_argument("--threads", type=int, default=0, help="0 takes all cores (default: %(default)s)")
    args = parser.parse_args()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    random = np.random.default_rng(0)
    sides = {"content": args.size, "style": args.style_size or args.size}
    values = {name: random.random((1, 3, side, side), dtype=np.float32) for name, side in sides.items()}
    for file in args.files:
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        wanted = {one.name: values[one.name] for one in session.get_inputs()}
        names = [one.name for one in session.get_outputs()]
        started = time.perf_counter()
        values |= dict(zip(names, session.run(names, wanted), strict=True))
        seconds, peak = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        gib = peak / 2 ** (30 if sys.platform == "darwin" else 20)
        print(f"{file}  {seconds:.1f} s  peak {gib:.2f} GiB")
        del session


if __name__ == "__main__":
    main()
