"""Long use: memory, file handles and threads of a process that paints a thousand pictures, and of a ComfyUI server.

    python -m tests.load --pictures 1000
    COMFYUI_PATH=~/ComfyUI PYTHON=~/ComfyUI/.venv/bin/python python -m tests.load --prompts 200

Contents and styles change their size with each picture, so that nothing that is kept fits the next one. Every fourth
prompt of the server is interrupted at a random moment. What a quarter of the pictures may still load and keep counts as
the start; from there on memory has to be flat (`MOST_GROWTH`), and neither file handles nor threads may be added.

For Linux, which tells what a process holds.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from adaattn_core import encode_style, load_image, load_model, save_image, stylize
from tests.comfyui.graphs import changed, parts_graph, stylize_graph
from tests.comfyui.host import Host, Prompt, Run
from tests.helpers.small_models import picture

SIDES = (64, 256)
"""Least and largest side of contents and styles, in pixels."""
WARM_UP = 0.25
"""Share of the pictures after which a process has all it will ever keep: libraries, and results for the next call."""
MOST_GROWTH = 40.0
"""MiB that memory may grow by in all, on the straight line through its measurements: of a thousand pictures 55 kB each,
a tenth of a small one. Pages that malloc holds vary by more from one picture to the next."""
INTERRUPT_EVERY = 4
KERNELS_KEPT = "16"
"""Kernels that oneDNN keeps in the server. Without a limit it keeps the last 1,024 that it compiled, one for each
convolution and size, so that memory grows for hundreds of prompts of changing sizes before it is flat."""


class Held(NamedTuple):
    """What a process holds.

    memory: resident, in MiB. handles: open files and sockets. threads: of all kinds.
    """

    memory: float
    handles: int
    threads: int


def held_by(process: int) -> Held:
    status = Path(f"/proc/{process}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return Held(int(fields["VmRSS"].split()[0]) / 1024, len(os.listdir(f"/proc/{process}/fd")), int(fields["Threads"]))


def report(what: str, measured: Sequence[Held]) -> list[str]:
    """Prints what was measured after each picture; returns what is wrong."""
    steady = measured[int(WARM_UP * len(measured)) :]
    growth = slope([one.memory for one in steady]) * len(steady)
    first, last = steady[0], steady[-1]
    most = Held(*(max(values) for values in zip(*steady, strict=True)))
    print(
        f"{what}: memory {first.memory:.0f} MiB after {len(measured) - len(steady)}, {last.memory:.0f} MiB at the end "
        f"(at most {most.memory:.0f}), {growth:+.1f} MiB by the straight line; "
        f"file handles {first.handles} to {last.handles} (at most {most.handles}); "
        f"threads {first.threads} to {last.threads} (at most {most.threads})",
        flush=True,
    )
    problems = [f"{what}: memory grew by {growth:.1f} MiB"] if growth > MOST_GROWTH else []
    for name in ("handles", "threads"):
        before, after = getattr(first, name), getattr(last, name)
        problems += [f"{what}: {before} {name} became {after}"] if after > before else []
    return problems


def slope(values: Sequence[float]) -> float:
    """Of the straight line with the least squared error, per value.

    >>> slope([1.0, 3.0, 5.0])
    2.0
    """
    middle, mean = (len(values) - 1) / 2, sum(values) / len(values)
    squares = sum((index - middle) ** 2 for index in range(len(values)))
    return sum((index - middle) * (value - mean) for index, value in enumerate(values)) / max(squares, 1)


def sizes(generator: random.Random) -> tuple[int, int]:
    return generator.randint(*SIDES), generator.randint(*SIDES)


def paint_here(count: int, generator: random.Random) -> list[str]:
    """Reads, paints and writes pictures in this process."""
    model = load_model("compact")
    measured = []
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        content, result = Path(folder, "content.png"), Path(folder, "result.jpg")
        for number in range(count):
            save_image(picture(*sizes(generator), seed=number), content)
            style = picture(*sizes(generator), seed=-number)
            mask = torch.ones(1, 1, *style.shape[-2:]) if number % 3 == 0 else None
            encoded = encode_style(model, style, mask=mask, attention="sampled" if number % 5 == 0 else "exact")
            save_image(stylize(model, load_image(content), encoded, keep_color=number % 2 == 0), result)
            measured.append(held_by(os.getpid()))
    return report(f"{count} pictures in one process, {time.monotonic() - started:.0f} s", measured)


def paint_in_comfyui(count: int, generator: random.Random) -> list[str]:
    """Queues prompts in a server, and interrupts every fourth."""
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", KERNELS_KEPT)
    with tempfile.TemporaryDirectory() as folder:
        arguments = os.environ.get("COMFYUI_ARGS", "--cpu").split()
        with Host(Path(os.environ["COMFYUI_PATH"]), Path(folder), os.environ.get("PYTHON", sys.executable),
                  arguments) as host:  # fmt: skip
            started = time.monotonic()
            measured, runs = prompts(host, count, generator)
            seconds = time.monotonic() - started
    interrupted = sum(run.interrupted for run in runs)
    failed = [f"a prompt failed: {run.error}" for run in runs if not (run.succeeded or run.interrupted)]
    what = f"{count} prompts in ComfyUI, of which {interrupted} were interrupted, {seconds:.0f} s"
    return [*failed, *report(what, measured)]


def prompts(host: Host, count: int, generator: random.Random) -> tuple[list[Held], list[Run]]:
    """Runs prompts in pairs, so that one always waits in the queue.

    Returns:
        what the server held after each pair, twice, without the results that the pack keeps for the next prompt.
        The prompts that ended.
    """
    info = host.get("/object_info")
    measured: list[Held] = []
    runs: list[Run] = []
    for number in range(0, count, 2):
        pair = [small_model(graph(info, content=_any_picture(generator))) for graph in (stylize_graph, parts_graph)]
        queued = [host.queue(prompt) for prompt in pair]
        if number % INTERRUPT_EVERY == 0:
            time.sleep(generator.uniform(0, 0.5))
            host.interrupt()
        runs += [host.wait(key, prompt) for key, prompt in zip(queued, pair, strict=True)]
        kept = host.probe()["kept_bytes"] / 2**20  # grows by intention, to a limit
        held = held_by(host.pid)  # the probe has given back what malloc held free
        measured += [held._replace(memory=held.memory - kept)] * 2
    return measured, runs


def _any_picture(generator: random.Random) -> dict[str, int]:
    height, width = sizes(generator)
    return {"height": height, "width": width, "seed": generator.randint(0, 10**6)}


def small_model(prompt: Prompt) -> Prompt:
    """The graph with the compact model wherever it names one."""
    for node, entry in prompt.items():
        if "model_name" in entry["inputs"]:
            prompt = changed(prompt, node, model_name="built-in")
    return prompt


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=0, help="to paint in this process")
    parser.add_argument("--prompts", type=int, default=0, help="to queue in the ComfyUI of COMFYUI_PATH")
    parser.add_argument("--seed", type=int, default=0, help="of sizes and moments (default: 0)")
    args = parser.parse_args()
    generator = random.Random(args.seed)
    problems = paint_here(args.pictures, generator) if args.pictures else []
    problems += paint_in_comfyui(args.prompts, generator) if args.prompts else []
    print(*problems, sep="\n", end="\n" if problems else "")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
