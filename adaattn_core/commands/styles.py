"""The styles that a command takes: found, checked, read and encoded once."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from ..inference.stylize import encode_style
from ..io.image_files import find_images
from ..io.images import load_image, load_mask
from ..models.fusion import StyleFeatures
from ..models.model import StyleTransferModel
from ..ops.masks import fit_mask
from ..ops.resize import resize_image
from .options import NO_MASK


class Styles:
    """Pictures that are mixed, with a mask or NO_MASK for each; read once and encoded once."""

    def __init__(self, paths: Sequence[Path], masks: Sequence[str], args: argparse.Namespace) -> None:
        self.paths, self.masks, self.args = paths, masks, args
        self.pictures: list[tuple[Tensor, Tensor | None]] = []
        self.features: list[StyleFeatures] = []

    def read(self) -> None:
        """Raises what is wrong with a picture or its mask."""
        if self.pictures:
            return
        pictures = []
        for path, mask_path in zip(self.paths, self.masks, strict=True):
            picture = load_image(path)
            mask = None if mask_path == NO_MASK else fit_mask(load_mask(mask_path), picture, "style")
            if self.args.style_size and min(picture.shape[-2:]) > self.args.style_size:
                picture = resize_image(picture, short_side=self.args.style_size)
            pictures.append((picture, mask))
        self.pictures = pictures

    def encoded(self, model: StyleTransferModel) -> list[StyleFeatures]:
        """What `stylize` takes."""
        if not self.features:
            self.features = [
                encode_style(
                    model,
                    picture,
                    mask=mask,
                    attention=self.args.attention,
                    seed=self.args.seed,
                    max_memory_gb=self.args.max_memory_gb,
                )  # fmt: skip
                for picture, mask in self.pictures
            ]
        return self.features


def find_styles(patterns: Sequence[str], alone: bool = True) -> list[Path]:
    """Several patterns name a picture each; a single one may name more, where each can be used `alone`."""
    found = [find_images([pattern]) for pattern in patterns]
    for pattern, paths in zip(patterns, found, strict=True):
        if len(paths) > 1 and not (alone and len(patterns) == 1):
            cure = "Name the pictures" + (", or give this one alone to use one after the other." if alone else ".")
            where = "where several --style are mixed, each is one picture." if alone else "each --style is one picture."
            raise ValueError(f"--style {pattern} holds {len(paths)} pictures; {where} {cure}")
    return [path for paths in found for path in paths]


def style_masks(args: argparse.Namespace, styles: Sequence[Path]) -> list[str]:
    """One for each style."""
    masks: list[str] = args.style_mask or [NO_MASK] * len(styles)
    if len(masks) != len(styles):
        raise ValueError(f"{len(masks)} style masks came for {len(styles)} styles; give one for each, or {NO_MASK!r}.")
    return masks


def check_shares(args: argparse.Namespace, styles: Sequence[Path], is_mix: bool = True) -> None:
    """Raises a ValueError where --style-weights do not fit the styles."""
    if args.style_weights and not (is_mix and len(args.style_weights) == len(styles)):
        how = "to mix" if is_mix else "to be used one by one"
        came = f"{len(args.style_weights)} style weights came for {len(styles)} styles {how}"
        raise ValueError(f"{came}; one is needed for each --style to mix. Add or leave out some.")
