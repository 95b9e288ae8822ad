"""Damaged files and hostile values by the thousand: `python -m tests.fuzz --cases 20000`.

Each case must succeed or end in one line of ours. Cases run in processes of their own, so that one that crashes or
hangs is found, too. `--target NAME --first N --cases 1` runs one case again, and `--save FOLDER` keeps its file.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import time
from pathlib import Path

from tests.fuzz.runner import SECONDS, plan, run_case
from tests.fuzz.targets import TARGETS

CHUNK = 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", type=int, default=500, help="cases over all targets (default 500)")
    parser.add_argument("--target", choices=list(TARGETS), help="only this kind")
    parser.add_argument("--first", type=int, default=0, help="number of the first case, with --target")
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="write the files of bad cases there")
    parser.add_argument("--here", action="store_true", help="in this process; a crash ends it")
    args = parser.parse_args()
    started = time.monotonic()
    if args.here:
        return run_here(args.target, range(args.first, args.first + args.cases), args.save)
    numbers = [(args.target, range(args.first, args.first + args.cases))] if args.target else plan(args.cases)
    bad = 0
    for name, cases in numbers:
        found = sum(run_chunk(name, cases[at : at + CHUNK], args.save) for at in range(0, len(cases), CHUNK))
        print(f"{name}: {len(cases)} cases, {found} bad", flush=True)
        bad += found
    print(f"{sum(len(cases) for _, cases in numbers)} cases, {bad} bad, {time.monotonic() - started:.0f} s")
    return 1 if bad else 0


def run_here(name: str, numbers: range, save: Path | None) -> int:
    """Prints each number before its case, and its problem after it; exit code 1 if there was one."""
    bad = 0
    for number in numbers:
        print(f"case {number}", flush=True)
        finding = run_case(name, number)
        if finding:
            bad += 1
            print(f"bad {finding}", flush=True)
            if save:
                write_case(name, number, save)
    return 1 if bad else 0


def run_chunk(name: str, numbers: range, save: Path | None) -> int:
    """Runs cases in a process of their own, and after a crash or a hang the rest in another. Returns the bad ones."""
    bad = 0
    while numbers:
        command = [sys.executable, "-X", "faulthandler", "-m", "tests.fuzz", "--here", "--target", name]
        command += ["--first", str(numbers[0]), "--cases", str(len(numbers))]
        if save:
            command += ["--save", str(save)]
        limit = 30 + SECONDS * len(numbers)
        try:
            result = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=limit, check=False)
            output, code = result.stdout, result.returncode
        except subprocess.TimeoutExpired as error:
            output, code = (error.stdout or b"").decode(), -1
        lines = output.splitlines()
        bad += sum(line.startswith("bad ") for line in lines)
        for line in lines:
            if line.startswith("bad "):
                print(line, flush=True)
        if code in (0, 1) and lines[-1:] and f"case {numbers[-1]}" in lines:
            return bad
        last = max((int(line.split()[1]) for line in lines if line.startswith("case ")), default=numbers[0])
        print(f"bad {name} {last}: ended the process (code {code})", flush=True)
        if save:
            write_case(name, last, save)
        bad, numbers = bad + 1, range(last + 1, numbers[-1] + 1)
    return bad


def write_case(name: str, number: int, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    data = TARGETS[name].make(random.Random(f"{name} {number}"))
    (folder / f"{name.replace(' ', '_')}-{number}{TARGETS[name].suffix}").write_bytes(data)


if __name__ == "__main__":
    sys.exit(main())
