"""The command line `adaattn`: commands, exit codes, and errors as one line.

Exit codes: 0 done, 1 failed on the way, 2 wrong input, 130 interrupted, 143 terminated (train, which saves).
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn, Protocol

from . import __version__
from .commands import bench, compare, convert, evaluate, info, stylize, train, video
from .commands.errors import FAILED, INTERRUPTED, WRONG_INPUT, explain


class Command(Protocol):
    """What a module of commands/ is."""

    __doc__: str | None

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace) -> int: ...


COMMANDS: dict[str, Command] = {
    "stylize": stylize,
    "video": video,
    "compare": compare,
    "convert": convert,
    "train": train,
    "evaluate": evaluate,
    "bench": bench,
    "info": info,
}


class Parser(argparse.ArgumentParser):
    """Tells what is wrong with the arguments in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(WRONG_INPUT, f"adaattn: {' '.join(message.split())}. See {self.prog} --help.\n")


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="adaattn", description="Style transfer with AdaAttN.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"adaattn {__version__}")
    parser.add_argument("--verbose", action="store_true", help="show where in the code an error came from")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        summary = (command.__doc__ or "").partition("\n")[0]
        subparser = commands.add_parser(
            name, help=summary, description=summary, allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        command.add_arguments(subparser)
        subparser.add_argument(
            "--verbose",
            action="store_true",
            default=argparse.SUPPRESS,
            help="show where in the code an error came from",
        )
        subparser.set_defaults(run=command.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):  # a file name that the terminal cannot show must not end the work
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        args = build_parser().parse_args(argv)
    except SystemExit as stop:  # after --help, or an error that has been shown
        return int(stop.code or 0)
    logging.basicConfig(format="adaattn: %(message)s")
    logging.getLogger(__package__).setLevel(logging.DEBUG if args.verbose else logging.WARNING)
    try:
        with warnings.catch_warnings():
            if not args.verbose:  # what libraries say to programmers, in several lines, nobody here can act on
                warnings.simplefilter("ignore")
            code: int = args.run(args)
        print(end="", flush=True)  # a closed pipe shows here
    except KeyboardInterrupt:
        print("adaattn: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        return _leave_closed_pipe()
    except Exception as error:
        if args.verbose:
            traceback.print_exc()
        code, line = explain(error)
        print(f"adaattn: {line}", file=sys.stderr)
    return code


def _leave_closed_pipe() -> int:
    """Quietly: who read our output wants no more of it. Source: the note on SIGPIPE in the documentation of signal."""
    with suppress(OSError, ValueError):  # a stream without a descriptor, in tests
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return FAILED


if __name__ == "__main__":
    sys.exit(main())
