"""Commands that are killed at random moments: what they have finished is whole, and the same command finishes the rest.

    python -m tests.faults --kills 50

Each kill is SIGKILL or SIGTERM, in turn, to a folder run, a clip, a training or an evaluation of small pictures. After
it every file under its final name has to be whole, and after SIGTERM nothing temporary may be left. Then the command is
run to its end: the results have to be those of a run without kills, and nothing temporary may be left.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

import adaattn_core.training.initialization
import adaattn_core.training.run_log
from adaattn_core import save_image, save_model
from adaattn_core.cli import main as run_command
from adaattn_core.commands import evaluate
from adaattn_core.errors import CheckpointError
from adaattn_core.io.image_files import is_whole
from adaattn_core.training.run_checkpoint import CHECKPOINT, read_checkpoint
from tests.helpers.evaluation import narrow_vgg19
from tests.helpers.small_models import picture, small_model
from tests.helpers.tiny_clips import frames, read_clip, write_clip
from tests.helpers.tiny_training import skip_plot, small_vgg, tiny_settings, write_pictures

PICTURES = 12
FRAMES = 24
MODEL = "--model m.safetensors --device cpu --precision float32"
CODES = {0: "done", 143: "terminated", -signal.SIGKILL: "killed"}


@dataclass(frozen=True)
class Scenario:
    """A command and what has to hold for its output folder `out`.

    Attributes:
        line: the command; `{resume}` is replaced by --resume where there is something to resume.
        damaged: files under final names that are not whole.
        result: what two runs to the end have in common.
    """

    name: str
    line: str
    damaged: Callable[[Path], list[str]]
    result: Callable[[Path], object]


def damaged_pictures(out: Path) -> list[str]:
    return [str(path) for path in out.rglob("*.png") if not path.name.startswith(".") and not is_whole(path)]


def picture_bytes(out: Path) -> object:
    return {path.name: path.read_bytes() for path in sorted(out.rglob("*.png"))}


def damaged_clip(out: Path) -> list[str]:
    path = out / "a.mp4"
    return ["a.mp4"] if path.exists() and len(read_clip(path)[0]) != FRAMES else []


def clip_frames(out: Path) -> object:
    pictures, times = read_clip(out / "a.mp4")
    return [one.tobytes() for one in pictures], times


def damaged_run(out: Path) -> list[str]:
    damaged = []
    for path in out.rglob("*.pt"):
        try:
            read_checkpoint(path)
        except CheckpointError as error:
            damaged.append(str(error))
    return damaged


def weights(out: Path) -> object:
    return {name: tensor.numpy().tobytes() for name, tensor in load_file(out / "model.safetensors").items()}


def damaged_report(out: Path) -> list[str]:
    for path in out.glob("report.json"):
        json.loads(path.read_text())
    return [str(path) for path in out.rglob("*.jpg") if not path.name.startswith(".") and not is_whole(path)]


def measurements(out: Path) -> object:
    report = json.loads((out / "report.json").read_text())
    return report["pairs"], report["metrics"], len(report["subjects"]) if "subjects" in report else None


def scenarios(folder: Path) -> list[Scenario]:
    settings = {**tiny_settings(folder, Path("out")), "steps": 4, "checkpoint_every": 1}
    flags = shlex.join(f"--{name.replace('_', '-')}={value}" for name, value in settings.items())
    return [
        Scenario("folder", f"stylize photos --style s.png -o out --resume {MODEL}", damaged_pictures, picture_bytes),
        Scenario("clip", f"video in.mp4 --style s.png -o out/a.mp4 {MODEL}", damaged_clip, clip_frames),
        Scenario("training", f"train {flags} {{resume}}", damaged_run, weights),
        Scenario("evaluation", "evaluate --content content --style style --model m.safetensors -o out --device cpu",
                 damaged_report, measurements),
    ]  # fmt: skip


def prepare(folder: Path) -> None:
    """Inputs of all scenarios."""
    write_pictures(folder)
    (folder / "photos").mkdir()
    for number in range(PICTURES):
        save_image(picture(64, 96, seed=number), folder / "photos" / f"{number}.jpg")
    save_image(picture(32, 32, seed=99), folder / "s.png")
    save_model(small_model(), folder / "m.safetensors", dtype=torch.float32)
    write_clip(folder / "in.mp4", frames(count=FRAMES), rate=8)
    vars(adaattn_core.training.initialization).update(load_vgg=small_vgg, FIT_CROPS=4)
    vars(adaattn_core.training.run_log).update(plot_losses=skip_plot)

    def offline(device: torch.device) -> None:
        raise CheckpointError("no network")

    vars(evaluate).update(load_vgg=lambda source="built-in", normalized=False: narrow_vgg19(), load_lpips_alex=offline,
                          peak_memory_gib=lambda method, pair, size: 0.5, has_matplotlib=lambda: False)  # fmt: skip


def start(scenario: Scenario, folder: Path) -> int:
    """The process id of the command. It is forked, so that it is at work at once."""
    resume = "--resume" if (folder / "out" / CHECKPOINT).is_file() else ""
    words = shlex.split(scenario.line.format(resume=resume))
    sys.stdout.flush()
    process = os.fork()
    if process:
        return process
    try:
        os.chdir(folder)
        log = os.open("log.txt", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.dup2(log, 1)
        os.dup2(log, 2)
        code = run_command(words)
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
        code = 99
    os._exit(code)


def wait(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def temporaries(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob(".*") if path.name.startswith((".adaattn-", ".running"))]


def kill(scenario: Scenario, folder: Path, number: int, delay: float) -> Iterator[str]:
    """Starts the command and kills it after `delay` seconds; yields what is wrong then."""
    process = start(scenario, folder)
    time.sleep(delay)
    os.kill(process, number)
    code = wait(process)
    if code not in CODES:
        yield f"exit code {code}: {(folder / 'log.txt').read_text()[-2000:]}"
    yield from (f"damaged: {name}" for name in scenario.damaged(folder / "out"))
    if code != -signal.SIGKILL:
        yield from (f"left behind: {name}" for name in temporaries(folder))


def finish(scenario: Scenario, folder: Path, expected: object) -> Iterator[str]:
    """Runs the command to its end; yields what is wrong then."""
    code = wait(start(scenario, folder))
    done = (folder / "log.txt").read_text()[-2000:]
    if code and not ("finished" in done and scenario.name == "training"):
        yield f"the run after the kills ended with {code}: {done}"
        return
    if scenario.result(folder / "out") != expected:
        yield "the results differ from those of a run without kills"
    yield from (f"left behind: {name}" for name in temporaries(folder))


def empty(folder: Path) -> None:
    shutil.rmtree(folder / "out", ignore_errors=True)
    (folder / "out").mkdir()
    (folder / "log.txt").write_text("")


def run_scenario(scenario: Scenario, folder: Path, kills: int, generator: random.Random) -> list[str]:
    """All kills of a scenario, three for each run to the end; returns what went wrong."""
    empty(folder)
    started = time.monotonic()
    code = wait(start(scenario, folder))
    seconds = time.monotonic() - started
    if code:
        return [f"{scenario.name}: the run without kills ended with {code}: {(folder / 'log.txt').read_text()}"]
    expected = scenario.result(folder / "out")
    problems: list[str] = []
    for count in range(kills):
        if count % 3 == 0:
            empty(folder)
        number = (signal.SIGKILL, signal.SIGTERM)[count % 2]
        problems += kill(scenario, folder, number, generator.uniform(0, 0.9 * seconds))
        if count % 3 == 2 or count == kills - 1:
            problems += finish(scenario, folder, expected)
    print(f"{scenario.name}: {kills} kills, {len(problems)} problems; {seconds:.1f} s without kills")
    return [f"{scenario.name}: {problem}" for problem in problems]


def run_together(scenario: Scenario, folder: Path) -> list[str]:
    """The same command in two processes at the same time: at least one paints, and names itself to the other."""
    empty(folder)
    processes = [start(scenario, folder) for _ in range(2)]
    codes = [wait(process) for process in processes]
    told = (folder / "log.txt").read_text()
    expected = codes.count(0) == 2 or sorted(codes) == [0, 2] and "is in use: process" in told
    problems = [] if expected else [f"exit codes {codes}: {told[-2000:]}"]
    problems += scenario.damaged(folder / "out") + temporaries(folder)
    print(f"{scenario.name}: two processes in one folder, {len(problems)} problems")
    return [f"{scenario.name}, two processes: {problem}" for problem in problems]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="in all, divided among the scenarios (default: 50)")
    parser.add_argument("--only", metavar="NAME", help="folder, clip, training or evaluation (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    args = parser.parse_args()
    torch.set_num_threads(1)  # a process with threads cannot be forked
    generator = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        problems = []
        several = [scenario for scenario in scenarios(folder) if args.only in (None, scenario.name)]
        for index, scenario in enumerate(several):
            kills = args.kills // len(several) + (index < args.kills % len(several))
            problems += run_scenario(scenario, folder, kills, generator) if kills else []
        for scenario in several:
            if scenario.name in ("folder", "clip"):
                problems += run_together(scenario, folder)
    print(*problems, sep="\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
