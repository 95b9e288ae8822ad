"""Train a model on folders of pictures."""

from __future__ import annotations

import argparse
import ast
import inspect
import logging
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ..runtime.distributed import DistributedContext, PeerError
from ..runtime.signals import Terminated
from ..training.config import TrainConfig
from ..training.loop import train
from ..training.run_checkpoint import CHECKPOINT
from .errors import FAILED, INTERRUPTED, TERMINATED

EXAMPLES = """\
Ctrl-C and SIGTERM save and end, with exit code 130 and 143.

examples:
  adaattn train --content photos/ --style paintings/ --vgg torchvision --output runs/first
  adaattn train --config first.toml --lr 5e-5 --resume
  torchrun --nproc-per-node 4 -m adaattn_core.train --config first.toml --batch 32
where first.toml says the same as flags do:
  content = "photos/"
  style = "paintings/"
  vgg = "torchvision"
  output = "runs/first"
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    add_settings(parser)
    parser.add_argument("--resume", action="store_true", help="go on with the run in the --output folder")


def add_settings(parser: argparse.ArgumentParser) -> None:
    """A flag for each field of TrainConfig. One that is not given leaves no trace, so that the file's word counts."""
    parser.add_argument("--config", action=ConfigFile, metavar="FILE", help="TOML file of settings; flags override it")
    hints, docs = get_type_hints(TrainConfig), field_docs(TrainConfig)
    for field in fields(TrainConfig):
        flags = [flag(field.name), *(["-o"] if field.name == "output" else [])]
        parser.add_argument(
            *flags, default=argparse.SUPPRESS, help=_help(field, docs.get(field.name, "")), **_kind(hints[field.name])
        )


def given_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Those that flags or the file have named."""
    return {field.name: getattr(args, field.name) for field in fields(TrainConfig) if hasattr(args, field.name)}


def run(args: argparse.Namespace) -> int:
    given = given_settings(args)
    missing = [
        flag(field.name) for field in fields(TrainConfig) if field.default is MISSING and field.name not in given
    ]
    if missing:
        raise ValueError(f"{', '.join(missing)} missing. Give them as flags or in a --config file.")
    config = TrainConfig(**given)
    is_main_process = DistributedContext.from_env().is_main_process
    if not is_main_process:  # the writer speaks for all
        logging.getLogger("adaattn_core").setLevel(logging.DEBUG if args.verbose else logging.ERROR)
    try:
        model = train(config, resume=args.resume, progress=sys.stderr.isatty())
    except KeyboardInterrupt as stop:
        has_save = (Path(config.output) / CHECKPOINT).is_file()
        done = f"what is done is in {config.output}. Go on with --resume" if has_save else "no step was done yet"
        if is_main_process:
            print(f"adaattn: stopped; {done}.", file=sys.stderr)
        return TERMINATED if isinstance(stop, Terminated) else INTERRUPTED
    except PeerError:
        return FAILED
    if is_main_process:
        print(model)
    return 0


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def field_docs(config: type) -> dict[str, str]:
    """The strings under a dataclass's fields, by field: their only description, so that nothing is written twice."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(config))).body
    assert isinstance(definition, ast.ClassDef)
    docs = {}
    for field, below in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
            docs[field.target.id] = " ".join(ast.literal_eval(below.value).split())
    return docs


def _help(field: Field[Any], doc: str) -> str:
    if field.default is MISSING:
        return f"{doc} (needed)".replace("%", "%%")
    default = ",".join(field.default) if isinstance(field.default, tuple) else field.default
    return f"{doc} (default: {'none' if default == '' else default})".strip().replace("%", "%%")


def _kind(hint: type) -> dict[str, Any]:
    """How argparse reads a value of a type."""
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction}
    if get_origin(hint) is Literal:
        return {"choices": get_args(hint)}
    if get_origin(hint) is tuple:
        return {"type": _names, "metavar": "A,B"}
    return {"type": hint} if hint is str else {"type": hint, "metavar": {int: "N", float: "X"}[hint]}


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


class ConfigFile(argparse.Action):
    """Reads a TOML file as if its lines were flags that stand before all others."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        try:
            settings = read_toml(str(values))
            words = [word for name, value in settings.items() for word in _as_flags(name, value)]
        except OSError as error:
            parser.error(f"{values} cannot be used: {error.strerror}")
        except ValueError as error:
            parser.error(f"{values} cannot be used: {error}")
        for name, value in vars(parser.parse_args(words)).items():
            if name in settings and not hasattr(namespace, name):
                setattr(namespace, name, value)


def read_toml(path: str) -> dict[str, Any]:
    """Settings by field name (`-` may stand for `_`).

    Raises:
        OSError, ValueError: no such file, not TOML, or a setting that TrainConfig does not have.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib
        except ImportError:
            raise ValueError("Python 3.10 needs a package to read TOML. Run: pip install tomli") from None
    with open(path, "rb") as file:
        settings = {name.replace("-", "_"): value for name, value in tomllib.load(file).items()}
    known = [field.name for field in fields(TrainConfig)]
    unknown = sorted(settings.keys() - set(known))
    if unknown:
        raise ValueError(f"it has a setting {unknown[0]!r}; known are {', '.join(known)}")
    return settings


def _as_flags(name: str, value: object) -> list[str]:
    if isinstance(value, bool):
        return [flag(name) if value else flag(f"no_{name}")]
    if isinstance(value, dict):
        raise ValueError(f"{name} is a table; a plain value is needed")
    return [f"{flag(name)}={','.join(map(str, value)) if isinstance(value, list) else value}"]
