"""Train a model on folders of pictures."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ..checkpoints.vgg import BUILT_IN_VGG
from ..runtime.distributed import DistributedContext, PeerError
from ..runtime.signals import exit_code
from ..training.config import TrainConfig
from ..training.loop import train
from ..training.run_checkpoint import CHECKPOINT
from .shared.errors import FAILED
from .shared.idle_options import Idle, remark_idle

EXAMPLES = """\
Ctrl-C and SIGTERM save the run and end it with exit code 130 or 143.

examples:
  adaattn train --content photos/ --style paintings/ --output runs/first
  adaattn train --config first.toml --lr 5e-5 --resume
  torchrun --nproc-per-node 4 -m adaattn_core.train --config first.toml --batch 32
where first.toml contains the same settings as flags:
  content = "photos/"
  style = "paintings/"
  output = "runs/first"
"""

IDLE = (
    Idle("--distill-steps --encoder-lr-scale", lambda run: run.freeze_encoder, "with --freeze-encoder"),
    Idle("--pretrain-lr", lambda run: not run.stage_ends["reconstruct"], "on a run that has only the style stage"),
    Idle("--refit-attention", lambda run: not run.init, "without --init: a new model is fitted in any case"),
    Idle("--architecture --width", lambda run: run.init, "with --init, whose model has a shape of its own"),
    Idle("--deep-lr-scale", lambda run: run.kind == "video", "on --kind video, which has one level"),
    Idle("--vgg-floor", lambda run: run.vgg == BUILT_IN_VGG, "on the built-in VGG-19, whose channels are normalised"),
    Idle(
        "--global-levels", lambda run: not run.global_weight and not run.identity_weight,
        "with --global-weight 0 and --identity-weight 0",
    ),
    Idle("--relative-style", lambda run: not run.global_weight, "with --global-weight 0"),
    Idle("--relative-local --local-levels --local-samples", lambda run: not run.local_weight, "with --local-weight 0"),
    Idle("--content-levels", lambda run: not run.content_weight, "without --content-weight"),
    Idle("--similarity-weight --similarity-levels", lambda run: run.kind != "video", "without --kind video"),
    Idle(
        "--similarity-levels --frame-gap", lambda run: run.kind == "video" and not run.similarity_weight,
        "with --similarity-weight 0",
    ),
    Idle("--teacher-weight", lambda run: not run.teacher, "without --teacher"),
    Idle("--teacher", lambda run: not run.teacher_weight, "with --teacher-weight 0"),
    Idle("--damage", lambda run: run.uses_frame_pairs, "on pairs of frames (--kind video)"),
    Idle("--pixel-weight", lambda run: not run.n_self_pairs, "without self pairs (--self-pairs of --batch)"),
    Idle("--styles-per-content", lambda run: run.batch <= run.accumulate, "on parts of a batch that hold one pair"),
    Idle(
        "--lr --ema-decay --styles-per-content --self-pairs --global-weight --relative-style --local-weight "
        "--relative-local --patch-weight --content-weight --pixel-weight --color-weight --mesh-weight --teacher "
        "--damage --similarity-weight --identity-weight",
        lambda run: not run.steps, "with --steps 0: there is no style stage",
    ),
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    add_settings(parser)
    parser.add_argument("--resume", action="store_true", help="continue the run in the --output folder")


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each field of TrainConfig. A flag that is not given sets no value, so that the file's applies."""
    parser.add_argument("--config", action=ConfigFile, metavar="FILE", help="TOML file of settings; flags override it")
    hints = get_type_hints(TrainConfig)
    for field in fields(TrainConfig):
        flags = [flag(field.name), *(["-o"] if field.name == "output" else [])]
        parser.add_argument(*flags, default=argparse.SUPPRESS, help=_help(field), **_argument_type(hints[field.name]))


def given_settings(args: argparse.Namespace) -> dict[str, Any]:
    """The settings that flags or the file set."""
    return {field.name: getattr(args, field.name) for field in fields(TrainConfig) if hasattr(args, field.name)}


def changed_settings(args: argparse.Namespace) -> set[str]:
    """The settings that flags or the file give another value than their default."""
    given, defaults = given_settings(args), {field.name: field.default for field in fields(TrainConfig)}
    return {name for name, value in given.items() if value not in (None, defaults[name])}


def train_config(args: argparse.Namespace) -> TrainConfig:
    """The settings of the run.

    Raises:
        ValueError: a setting is missing, or out of range.
    """
    given = given_settings(args)
    missing = [
        flag(field.name) for field in fields(TrainConfig) if field.default is MISSING and field.name not in given
    ]
    if missing:
        raise ValueError(f"{', '.join(missing)} missing. Set each by its flag or in a --config file.")
    return TrainConfig(**given)


def run(args: argparse.Namespace) -> int:
    config = train_config(args)
    is_main_process = DistributedContext.from_env().is_main_process
    if not is_main_process:  # only the main process reports
        logging.getLogger("adaattn_core").setLevel(logging.DEBUG if args.verbose else logging.ERROR)
    remark_idle(IDLE, config, changed_settings(args))
    try:
        model = train(config, resume=args.resume)
    except KeyboardInterrupt as stop:
        has_save = (Path(config.output) / CHECKPOINT).is_file()
        state = f"what is done is in {config.output}. Go on with --resume" if has_save else "no step was done yet"
        if is_main_process:
            print(f"adaattn: stopped; {state}.", file=sys.stderr)
        return exit_code(stop)
    except PeerError:
        return FAILED
    if is_main_process:
        print(model)
    return 0


def flag(name: str) -> str:
    """The flag of a setting."""
    return "--" + name.replace("_", "-")


def _help(field: Field[Any]) -> str:
    """The help text of a setting, with its default."""
    text = field.metadata["help"]
    if field.default is MISSING:
        return f"{text} (required)".replace("%", "%%")
    default = ",".join(field.default) if isinstance(field.default, tuple) else field.default
    return f"{text} (default: {'none' if default == '' else default})".replace("%", "%%")


def _argument_type(hint: type) -> dict[str, Any]:
    """Arguments of `add_argument` for a value of a type."""
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
    """Reads a TOML file; its settings apply where no flag is given."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        try:
            settings = read_toml(str(values))
            arguments = [argument for name, value in settings.items() for argument in _as_flags(name, value)]
        except OSError as error:
            parser.error(f"{values} cannot be used: {error.strerror}")
        except ValueError as error:
            parser.error(f"{values} cannot be used: {error}")
        for name, value in vars(parser.parse_args(arguments)).items():
            if name in settings and not hasattr(namespace, name):
                setattr(namespace, name, value)


def read_toml(path: str) -> dict[str, Any]:
    """The settings of a TOML file by field name; the file may write `-` instead of `_`.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not TOML, or has a setting that TrainConfig does not have.
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
    """A setting of a file as a flag, so that argparse checks its value."""
    if isinstance(value, bool):
        return [flag(name) if value else flag(f"no_{name}")]
    if isinstance(value, dict):
        raise ValueError(f"{name} is a table; a plain value is needed")
    return [f"{flag(name)}={','.join(map(str, value)) if isinstance(value, list) else value}"]
