"""A folder of many pictures beside the model alone: seconds a picture, and whether memory grows with the folder.

    python -m benchmarks.folder [--pictures 1000] [--size 512] [-o folder.json]

`adaattn stylize` paints a folder of copies of examples/ with the built-in model, in a process of its own; before and
after it another process paints some of them over and over, already decoded, and writes nothing.
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
ALONE = 30
"""Pictures that the model paints without files."""
WATCH_EVERY = 0.05
"""Seconds between two looks at how many pictures are there."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.folder", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--size", type=int, default=512, help="side in pixels (default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE")
    args = parser.parse_args(argv)
    if args.pictures < 20:
        parser.error(f"--pictures is {args.pictures}; 20 are needed, to tell the first of them from the rest")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fill(folder / "in", args.pictures, args.size)
        before = _in_a_process("alone", folder)
        found = _in_a_process("paint", folder)
        after = _in_a_process("alone", folder)
    found["model_seconds_a_picture"] = [before["seconds_a_picture"], after["seconds_a_picture"]]
    found["of_the_model"] = round(found["seconds_a_picture"] / statistics.mean(found["model_seconds_a_picture"]), 3)
    print("\n".join(f"{key}: {value}" for key, value in found.items()))
    if args.output:
        args.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


def fill(folder: Path, count: int, side: int) -> None:
    """That many JPEG files, side x side."""
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


def _in_a_process(what: str, folder: Path) -> dict[str, Any]:
    code = f"import json; from benchmarks import folder; print(json.dumps(folder.{what}(folder.Path({str(folder)!r}))))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def alone(folder: Path) -> dict[str, float]:
    """The model's own rate, the style encoded and the pictures decoded before."""
    from adaattn_core import encode_style, load_image, load_model, stylize
    from adaattn_core.commands.options import STYLE_SIDE
    from adaattn_core.ops.resize import resize_image

    model = load_model()
    style = encode_style(model, resize_image(load_image(STYLE), short_side=STYLE_SIDE))
    photos = [load_image(path) for path in sorted((folder / "in").glob("0-*"))]
    stylize(model, photos[0], style)
    started = time.perf_counter()
    for number in range(ALONE):
        stylize(model, photos[number % len(photos)], style)
    return {"seconds_a_picture": round((time.perf_counter() - started) / ALONE, 3)}


def paint(folder: Path) -> dict[str, Any]:
    """The command's rate after a tenth of the folder, and this process's peak memory by then and in the end."""
    from adaattn_core import cli
    from adaattn_core.runtime.memory import peak_memory_bytes

    out = folder / "out"
    out.mkdir()
    total = len(list((folder / "in").iterdir()))
    seen: list[tuple[int, float, int]] = []  # pictures, when, peak bytes
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(WATCH_EVERY):
            done = len(list(out.glob("*.png")))
            if done >= total // 10:
                seen.append((done, time.perf_counter(), peak_memory_bytes()))
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = cli.main(["stylize", str(folder / "in"), "--style", str(STYLE), "-o", str(out)])
    finished = time.perf_counter()
    ended.set()
    watcher.join()
    if code or not seen:
        raise SystemExit(f"adaattn stylize ended with {code}: {said.getvalue()}")
    (done, when, early), late = seen[0], peak_memory_bytes()
    return {
        "pictures": total,
        "seconds_a_picture": round((finished - when) / (total - done), 3),
        f"peak_gib_after_{done}": round(early / 2**30, 3),
        "peak_gib": round(late / 2**30, 3),
    }


if __name__ == "__main__":
    sys.exit(main())
