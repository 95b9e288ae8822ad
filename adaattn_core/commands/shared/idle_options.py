"""Options that have no effect beside the others that were given: a line says so, and the command goes on."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Container, Iterable
from typing import Any, NamedTuple

logger = logging.getLogger(__name__)


class Idle(NamedTuple):
    """Options that have no effect under a condition.

    options: separated by spaces. is_idle: the condition, of the values of all options. reason: the rest of the
    sentence "--seed has no effect".
    """

    options: str
    is_idle: Callable[[Any], bool]
    reason: str


def changed_options(args: argparse.Namespace, parser: argparse.ArgumentParser) -> set[str]:
    """The options of a command with another value than their default; a default asks for nothing."""
    return {name for name, value in vars(args).items() if value != parser.get_default(name)}


def remark_idle(rules: Iterable[Idle], args: Any, changed: Container[str] | None = None) -> None:  # noqa: ANN401
    """Logs a line for each rule that holds.

    Args:
        rules: of the command.
        args: an attribute for each option.
        changed: names of the options that were set; None takes `changed_options` of the command.
    """
    changed = changed_options(args, args.parser) if changed is None else changed
    for rule in rules:
        idle = [option for option in rule.options.split() if option.removeprefix("--").replace("-", "_") in changed]
        if idle and rule.is_idle(args):
            verb = "has" if len(idle) == 1 else "have"
            logger.warning("%s %s no effect %s.", ", ".join(idle), verb, rule.reason)


PAINTING = (
    Idle("--seed", lambda args: args.attention != "sampled", "without --attention sampled, whose positions it draws"),
    Idle("--style-weights", lambda args: len(args.style_weights) == 1, "with a single style"),
    Idle(
        "--style-weights --keep-color --temperature --attention --stroke-size --refine --style-size --content-mask "
        "--style-mask --region --precision",
        lambda args: args.strength == 0, "at --strength 0, which gives the content back",
    ),
)  # fmt: skip
"""Rules of stylize and video."""
