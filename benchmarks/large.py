"""Large pictures within limits of memory, and how long it takes to start: a process for each, one after the other.

    python -m benchmarks.large --weights FILE [--only 4k,start] [-o large.json]

FILE is a full-size model; without it the full-size jobs have random weights, whose attention is flat: the slowest case.
Peaks are of the whole process; beside them what is above the interpreter with torch imported. 4k takes about a quarter
of an hour on two cores.
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
    """A painting: which model, sizes as (height, width), and the limit it must keep, in GiB."""

    subject: str
    content: tuple[int, int]
    style: tuple[int, int]
    limit: float | None = None


JOBS = {
    "reference-1024": Job("reference", (1024, 1024), (1024, 1024)),
    "1024": Job("base", (1024, 1024), (1024, 1024)),
    "2048": Job("base", (2048, 2048), (2048, 2048), 4.0),
    "4k": Job("base", (2160, 3840), (1024, 1024), 8.0),
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
    found: dict[str, dict[str, Any]] = {}
    for name in args.only:
        found[name] = _in_a_process(name, args.weights)
        print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in found[name].items()), flush=True)
    if args.output:
        args.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    kept = [row["peak_gib"] <= JOBS[name].limit for name, row in found.items() if name in JOBS and JOBS[name].limit]
    return 0 if all(kept) else 1


def _in_a_process(name: str, weights: Path | None) -> dict[str, Any]:
    code = f"from benchmarks import large; large.run({name!r}, {str(weights) if weights else None!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def run(name: str, weights: str | None) -> None:
    """One job, in a process of its own; prints JSON."""
    print(json.dumps(start_up() if name == START else paint(JOBS[name], weights)))


def paint(job: Job, weights: str | None) -> dict[str, Any]:
    """Seconds and GiB of one picture."""
    import torch

    from adaattn_core import load_model, stylize
    from adaattn_core.benchmarking import inference as bench
    from adaattn_core.checkpoints.model_file import prepare_for_inference
    from adaattn_core.ops.resize import resize_image
    from adaattn_core.runtime.memory import peak_memory_bytes

    torch.set_flush_denormal(job.subject == "reference")  # as in adaattn bench; threads that start later take it over
    before = peak_memory_bytes()
    content, style = (
        resize_image(picture, size=size) for picture, size in zip(bench.pictures(1024), job[1:3], strict=True)
    )
    model = (
        load_model()
        if job.subject == "compact"
        else load_model(weights)
        if weights
        else prepare_for_inference(bench.random_base())
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
    """Seconds until the first picture of the built-in model at 512 x 512, on top of importing torch."""
    times = [time.perf_counter()]
    import torch  # noqa: F401

    times.append(time.perf_counter())
    import adaattn_core

    times.append(time.perf_counter())
    model = adaattn_core.load_model()
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
