"""Large pictures within memory limits, and the start-up time; each job runs in a separate process.

    python -m benchmarks.large --weights FILE [--only 4k,start] [-o large.json]

FILE is a full-size model. Without it the full-size jobs have random weights and flat attention, so key pruning never
succeeds: the worst case. Peaks are those of the whole process, and their excess over the interpreter with torch
imported. 4k takes about a quarter of an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]


class Job(NamedTuple):
    """A stylisation: the model, sizes as (height, width), and the memory limit in GiB."""

    subject: str
    content: tuple[int, int]
    style: tuple[int, int]
    limit: float | None = None


JOBS = {
    "reference-1024": Job("reference", (1024, 1024), (1024, 1024)),
    "1024": Job("published", (1024, 1024), (1024, 1024)),
    "2048": Job("published", (2048, 2048), (2048, 2048), 4.0),
    "4k": Job("published", (2160, 3840), (1024, 1024), 8.0),
    "8k": Job("compact", (4320, 7680), (512, 512), 8.0),
}
START = "start"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--weights", type=Path, metavar="FILE")
    parser.add_argument("--only", type=lambda text: text.split(","), default=[*JOBS, START], metavar="JOB,JOB")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE")
    args = parser.parse_args(argv)
    for name in args.only:
        if name not in (*JOBS, START):
            parser.error(f"unknown job {name!r}; known are {', '.join((*JOBS, START))}")
    results: dict[str, dict[str, Any]] = {}
    for name in args.only:
        results[name] = _run_in_process(name, args.weights)
        print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in results[name].items()), flush=True)
    if args.output:
        args.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    within_limit = [
        row["peak_gib"] <= JOBS[name].limit for name, row in results.items() if name in JOBS and JOBS[name].limit
    ]
    return 0 if all(within_limit) else 1


def _run_in_process(name: str, weights: Path | None) -> dict[str, Any]:
    code = f"from benchmarks import large; large.run({name!r}, {str(weights) if weights else None!r})"
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(process.stdout)
    return result


def run(name: str, weights: str | None) -> None:
    """Run one job in the separate process and print its results as JSON."""
    print(json.dumps(start_up() if name == START else stylize_job(JOBS[name], weights)))


def stylize_job(job: Job, weights: str | None) -> dict[str, Any]:
    """Seconds and peak GiB of one picture."""
    import torch

    from adaattn_core import load_model, stylize
    from adaattn_core.benchmarking import inference as bench
    from adaattn_core.checkpoints.model_file import prepare_for_inference
    from adaattn_core.ops.resize import resize_image
    from adaattn_core.runtime.memory import peak_memory_bytes

    torch.set_flush_denormal(job.subject == "reference")  # as in adaattn bench; threads started later inherit it
    before = peak_memory_bytes()
    content, style = (
        resize_image(picture, size=size) for picture, size in zip(bench.pictures(1024), job[1:3], strict=True)
    )
    model = (
        load_model("compact")
        if job.subject == "compact"
        else load_model(weights)
        if weights
        else prepare_for_inference(bench.random_published())
    )
    started = time.perf_counter()
    if job.subject == "reference":
        reference = bench.load_reference()
        sampling = reference.Sampling(generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            reference.stylize(bench.published_files(model), content, style, sampling)
    else:
        stylize(model, content, style, max_memory_gb=job.limit)
    seconds = time.perf_counter() - started
    peak = peak_memory_bytes()
    return {
        "peak_gib": round(peak / 2**30, 3),
        "above_torch_gib": round((peak - before) / 2**30, 3),
        "limit_gib": job.limit,
        "seconds": round(seconds, 1),
        "threads": torch.get_num_threads(),
    }


def start_up() -> dict[str, float]:
    """Seconds of each step up to the first picture of the built-in model at 512 x 512."""
    times = [time.perf_counter()]
    import torch  # noqa: F401

    times.append(time.perf_counter())
    import adaattn_core

    times.append(time.perf_counter())
    model = adaattn_core.load_model("compact")
    times.append(time.perf_counter())
    folder = ROOT / "examples"
    content, style = (adaattn_core.load_image(folder / f"{name}.jpg") for name in ("coffee", "great_wave"))
    from adaattn_core.ops.resize import resize_image

    content, style = (resize_image(picture, size=(512, 512)) for picture in (content, style))
    adaattn_core.stylize(model, content, style)
    times.append(time.perf_counter())
    names = ("torch", "import", "load", "first_picture")
    steps = {name: round(after - before, 2) for name, before, after in zip(names, times, times[1:], strict=False)}
    return {**steps, "seconds_on_top_of_torch": round(times[-1] - times[1], 2)}


if __name__ == "__main__":
    sys.exit(main())
