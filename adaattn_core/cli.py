"""The command line `adaattn`: its commands, exit codes and one-line errors.

Exit codes: 0 success, 1 failure during the work, 2 wrong input, 130 interrupted by Ctrl-C, 143 terminated by SIGTERM,
129 by SIGHUP (a closed terminal).
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
from .commands import attention, bench, compare, convert, demo, evaluate, export, info, stylize, train, video
from .commands.shared.errors import FAILED, WRONG_INPUT, explain
from .errors import printable
from .runtime.signals import GracefulShutdown, exit_code, stop_word
from .runtime.standard_streams import open_closed_streams


class Command(Protocol):
    """The interface of a module in commands/."""

    __doc__: str | None

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace) -> int: ...


VERBOSE_HELP = "show the Python traceback of an error"
COMMANDS: dict[str, Command] = {
    "stylize": stylize,
    "video": video,
    "compare": compare,
    "attention": attention,
    "convert": convert,
    "export": export,
    "demo": demo,
    "train": train,
    "evaluate": evaluate,
    "bench": bench,
    "info": info,
}


class Parser(argparse.ArgumentParser):
    """Reports wrong arguments in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(WRONG_INPUT, f"adaattn: {printable(' '.join(message.split()))}. See {self.prog} --help.\n")


class LineFormatter(logging.Formatter):
    """Writes each record in one line, in which no name of a file can command the terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        return printable(super().formatMessage(record))


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="adaattn", description="Style transfer with AdaAttN. Each command has its own --help.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"adaattn {__version__}")
    parser.add_argument("--verbose", action="store_true", help=VERBOSE_HELP)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        summary = (command.__doc__ or "").partition("\n")[0]
        subparser = commands.add_parser(
            name, help=summary, description=summary, allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        command.add_arguments(subparser)
        subparser.add_argument("--verbose", action="store_true", default=argparse.SUPPRESS, help=VERBOSE_HELP)
        subparser.set_defaults(run=command.run, parser=subparser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit code.

    Args:
        argv: the arguments; None takes those of the process.
    """
    open_closed_streams()
    for stream in (sys.stdout, sys.stderr):  # a file name that the terminal cannot encode must not raise an error
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        args, unknown = build_parser().parse_known_args(argv)
        if unknown:  # said by the command, whose --help lists what it knows
            args.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    except SystemExit as stop:  # after --help, or after an error that was reported
        return int(stop.code or 0)
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter("adaattn: %(message)s"))
    logging.basicConfig(handlers=[handler])
    logging.getLogger(__package__).setLevel(logging.DEBUG if args.verbose else logging.WARNING)
    try:
        with warnings.catch_warnings():
            if not args.verbose:  # warnings of libraries are for programmers and take several lines
                warnings.simplefilter("ignore")
            with GracefulShutdown():
                code: int = args.run(args)
        print(end="", flush=True)  # a closed pipe raises its error here
    except KeyboardInterrupt as stop:
        with suppress(OSError):  # the terminal may be gone
            print("adaattn:", stop_word(stop), file=sys.stderr)
        return exit_code(stop)
    except BrokenPipeError:
        return _leave_closed_pipe()
    except Exception as error:
        if args.verbose:
            traceback.print_exc()
        code, line = explain(error)
        print(f"adaattn: {line}", file=sys.stderr)
    return code


def _leave_closed_pipe() -> int:
    """Ends without a message, since the reader of the output has closed it.

    Source: the note on SIGPIPE in the documentation of Python's module signal.
    """
    with suppress(OSError, ValueError):  # a stream without a file descriptor, as in tests
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return FAILED


if __name__ == "__main__":
    sys.exit(main())
