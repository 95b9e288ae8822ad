"""What `adaattn evaluate` compares: the methods that --model and --pictures name, and the pairs."""

from __future__ import annotations

import argparse
import hashlib
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

from ...checkpoints.model_file import DEFAULT_MODEL, find_model
from ...evaluation.methods import (
    ExistingImages,
    IdentityBaseline,
    Method,
    ModelMethod,
    Pair,
    StyleCopyBaseline,
    attending_at,
    choose_pairs,
    existing_images,
)
from ...inference.stages import ATTENTIONS
from ...io.image_files import find_images
from .options import fraction, open_model, positive_number, refine_dtype, refine_steps


def methods_and_pairs(args: argparse.Namespace) -> tuple[list[Method], list[Pair]]:
    """The rows of the table, and the pairs that all of them are measured on."""
    folders = [_existing_images(text) for text in args.pictures]
    contents, styles = (find_images(patterns, without=args.output) for patterns in (args.content, args.style))
    pairs = choose_pairs(contents, styles, folders, args.pairs, args.seed)
    models = args.model or ([] if folders else [DEFAULT_MODEL])
    methods: list[Method] = [method for text in models for method in _model_methods(text, args)]
    methods += [*folders, IdentityBaseline(), StyleCopyBaseline()]
    names = [method.name for method in methods]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two rows would be called {name!r}. Give one another name with LABEL=.")
    return methods, pairs


def _model_methods(text: str, args: argparse.Namespace) -> list[ModelMethod]:
    """The row of a --model argument, followed by its ablations with --ablate."""
    label, name, options = parse_model(text)
    first = _model_method(label, name, options, args)
    if not args.ablate:
        return [first]
    levels = first.model.config.levels
    ablations: list[tuple[str, dict[str, Any]]] = [
        ("AdaIN statistics", {"levels": ()}), ("sampled", {"attention": "sampled"}),
    ]  # fmt: skip
    if len(levels) > 1:
        ablations.append((f"{levels[0]} alone", {"levels": levels[:1]}))
    return [first, *(_model_method(f"{label}, {title}", name, options | change, args) for title, change in ablations)]


def _model_method(label: str, name: str, options: dict[str, Any], args: argparse.Namespace) -> ModelMethod:
    path = find_model(name)
    model = open_model(argparse.Namespace(model=name, device=args.device, precision=args.precision))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    if "levels" in options:
        levels = options["levels"]
        options = {key: value for key, value in options.items() if key != "levels"}
        model, digest = attending_at(model, levels), f"{digest} at {'+'.join(levels) or 'none'}"
    return ModelMethod(label, model, name, digest, **options, refine_dtype=refine_dtype(args.precision))


def parse_model(text: str) -> tuple[str, str, dict[str, Any]]:
    """Label, name or file, and options of a --model argument.

    >>> parse_model("soft=compact,temperature=2")
    ('soft', 'compact', {'temperature': 2.0})
    >>> parse_model("runs/mine/model.safetensors")
    ('mine', 'runs/mine/model.safetensors', {})
    """
    if Path(text).is_file():
        return _label(text), text, {}
    head, *settings = text.split(",")
    label, name = _parse_label(head)
    parsers = {
        "attention": _attention,
        "temperature": positive_number,
        "strength": fraction,
        "levels": _levels,
        "refine": refine_steps,
    }
    options = {}
    for setting in settings:
        key, _, value = setting.partition("=")
        if key not in parsers:
            raise ValueError(f"--model {text} sets {key!r}; known are {', '.join(parsers)}")
        try:
            options[key] = parsers[key](value)
        except ArgumentTypeError as error:
            raise ValueError(f"--model {text}: {key}: {error}") from None
    return label or _label(name), name, options


def _existing_images(text: str) -> ExistingImages:
    label, folder = _parse_label(text)
    return existing_images(label or Path(folder).name, folder)


def _parse_label(text: str) -> tuple[str, str]:
    label, equals, name = text.partition("=")
    return (label, name) if equals and not Path(text).exists() else ("", text)


def _label(name: str) -> str:
    """The file name without suffix; of RUN/model.safetensors the name of the run."""
    path = Path(name)
    return path.parent.name if path.stem == "model" and path.parent.name else path.stem


def _attention(text: str) -> str:
    if text not in ATTENTIONS:
        raise ArgumentTypeError(f"{text!r} is unknown; known are {', '.join(ATTENTIONS)}")
    return text


def _levels(text: str) -> tuple[str, ...]:
    return () if text == "none" else tuple(text.split("+"))
