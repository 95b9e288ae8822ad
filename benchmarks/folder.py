"""A folder of many pictures beside the model alone: seconds per picture, and whether memory grows with the folder.

    python -m benchmarks.folder [--pictures 1000] [--size 512] [-o folder.json]

A separate process runs `adaattn stylize` with the built-in model on a folder of copies of examples/. Before and after
it, another process stylises decoded pictures repeatedly and writes nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PHOTOS = ("astronaut", "chelsea", "coffee", "rocket", "ramparts")
STYLE = ROOT / "examples" / "great_wave.jpg"
MODEL_PICTURES = 30
"""Pictures over which the rate of the model alone is measured."""
POLL_SECONDS = 0.05
"""Seconds between two counts of the finished pictures."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.folder", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--size", type=int, default=512, help="side in pixels (default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE")
    args = parser.parse_args(argv)
    if args.pictures < 20:
        parser.error(f"--pictures is {args.pictures}; 20 are needed, because a tenth of them is the warm-up")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fill(folder / "in", args.pictures, args.size)
        before = _run_in_process("measure_model", folder)
        results = _run_in_process("measure_command", folder)
        after = _run_in_process("measure_model", folder)
    results["model_seconds_a_picture"] = [before["seconds_a_picture"], after["seconds_a_picture"]]
    results["of_the_model"] = round(
        results["seconds_a_picture"] / statistics.mean(results["model_seconds_a_picture"]), 3
    )
    print("\n".join(f"{key}: {value}" for key, value in results.items()))
    if args.output:
        args.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return 0


def fill(folder: Path, count: int, side: int) -> None:
    """Fill a new folder with `count` JPEG files of side x side pixels."""
    from adaattn_core import load_image, save_image
    from adaattn_core.ops.resize import resize_image

    folder.mkdir()
    originals = [folder / f"0-{name}.jpg" for name in PHOTOS[:count]]
    for path in originals:
        photo = load_image(ROOT / "examples" / f"{path.stem[2:]}.jpg")
        save_image(resize_image(photo, size=(side, side)), path)
    for number in range(len(originals), count):
        original = originals[number % len(originals)]
        shutil.copyfile(original, folder / f"{number}-{original.name[2:]}")


def _run_in_process(function: str, folder: Path) -> dict[str, Any]:
    call = f"folder.{function}(folder.Path({str(folder)!r}))"
    code = f"import json; from benchmarks import folder; print(json.dumps({call}))"
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(process.stdout)
    return result


def measure_model(folder: Path) -> dict[str, float]:
    """Seconds per picture of the model alone, with an encoded style and decoded pictures."""
    from adaattn_core import encode_style, load_image, load_model, stylize
    from adaattn_core.commands.shared.options import STYLE_SIDE
    from adaattn_core.ops.resize import resize_image

    model = load_model("compact")
    style = encode_style(model, resize_image(load_image(STYLE), short_side=STYLE_SIDE))
    photos = [load_image(path) for path in sorted((folder / "in").glob("0-*"))]
    stylize(model, photos[0], style)
    started = time.perf_counter()
    for number in range(MODEL_PICTURES):
        stylize(model, photos[number % len(photos)], style)
    return {"seconds_a_picture": round((time.perf_counter() - started) / MODEL_PICTURES, 3)}


def measure_command(folder: Path) -> dict[str, Any]:
    """Seconds per picture of the command after the first tenth, and the process's peak memory then and at the end."""
    from adaattn_core import cli
    from adaattn_core.runtime.memory import peak_memory_bytes

    out = folder / "out"
    out.mkdir()
    total = len(list((folder / "in").iterdir()))
    snapshot: list[tuple[int, float, int]] = []  # finished pictures, time, peak bytes; after a tenth of the folder
    ended = threading.Event()

    def poll() -> None:
        while not ended.wait(POLL_SECONDS):
            done = len(list(out.glob("*.png")))
            if done >= total // 10:
                snapshot.append((done, time.perf_counter(), peak_memory_bytes()))
                return

    poller = threading.Thread(target=poll)
    poller.start()
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        code = cli.main(["stylize", str(folder / "in"), "--style", str(STYLE), "-o", str(out)])
    finished = time.perf_counter()
    ended.set()
    poller.join()
    if code or not snapshot:
        raise SystemExit(f"adaattn stylize ended with {code}: {output.getvalue()}")
    (done, time_then, peak_then), peak = snapshot[0], peak_memory_bytes()
    return {
        "pictures": total,
        "seconds_a_picture": round((finished - time_then) / (total - done), 3),
        f"peak_gib_after_{done}": round(peak_then / 2**30, 3),
        "peak_gib": round(peak / 2**30, 3),
    }


if __name__ == "__main__":
    sys.exit(main())
