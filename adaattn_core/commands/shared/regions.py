"""Regions of a content in styles of their own: the option --region of `adaattn stylize`, beside --content-mask."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from ...io.images import load_mask
from ...ops.masks import fit_mask, union
from ...runtime.remarks import remark
from .options import NO_MASK, Styles
from .paths import input_path


class Region(NamedTuple):
    """A mask of the content and the style that is painted there."""

    mask: str
    style: Path


def add_region_option(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--region", action="append", nargs=2, type=input_path, metavar=("MASK", "STYLE"),
        help="paint the white part of a mask picture in a style of its own. Give the option once for each region; "
        "soft masks let one style pass into the other. --style then paints --content-mask, or what the regions leave; "
        "without --style the content stays there",
    )  # fmt: skip


class Areas:
    """Where the styles of --style and those of --region are painted. Masks are read once, black ones are left out.

    Args:
        content_mask: the value of --content-mask.
        regions: those of --region.
        weights: of the styles of --style.

    Raises:
        ImageError: a mask cannot be read.
    """

    def __init__(self, content_mask: str | None, regions: Sequence[Region], weights: Sequence[float] | None) -> None:
        self.names = [region.mask for region in regions]
        self.mask = load_mask(content_mask) if content_mask else None
        if self.mask is not None and not bool(self.mask.any()):
            remark(str(content_mask), "this mask is black everywhere, so nothing is painted")
        self.weights = weights
        loaded = [(region, load_mask(region.mask)) for region in regions]
        for region, mask in loaded:
            if not bool(mask.any()):
                remark(region.mask, "this mask is black everywhere, so its region is left out")
        self.regions = [(region, mask) for region, mask in loaded if bool(mask.any())]

    def styles(self, paths: Sequence[Path], masks: Sequence[str], args: argparse.Namespace) -> Styles:
        """The styles of --style with their masks, and after them those of the regions."""
        added = [region.style for region, _ in self.regions]
        if self.names and self.mask is not None and not bool(self.mask.any()):
            paths, masks = [], []
        return Styles([*paths, *added], [*masks, *[NO_MASK] * len(added)], args)

    def check(self, picture: Tensor) -> None:
        """Raises a ValueError if a mask does not fit a content, (1, 3, H, W)."""
        if self.mask is not None:
            fit_mask(self.mask, picture, "content")
        for region, mask in self.regions:
            try:
                fit_mask(mask, picture, "content")
            except ValueError as error:
                raise ValueError(f"{region.mask}: {error}") from error

    def options(self, count: int) -> dict[str, Any]:
        """The arguments of `stylize` for this number of styles: masks, and weights, of which regions have 1 each."""
        if not self.names:
            return {"content_mask": self.mask, "style_weights": self.weights}
        own = count - len(self.regions)
        given = self.weights or [1.0] * own
        weights = [weight / sum(given) for weight in given] if own else []
        masks = [self.mask] * own + [mask for _, mask in self.regions]
        return {"region_masks": masks, "style_weights": [*weights, *[1.0] * len(self.regions)]}

    def covered(self, picture: Tensor, count: int) -> Tensor | float:
        """Where a content, (1, 3, H, W), is painted in any of this number of styles: (1, 1, H, W), or a number."""
        own = count - len(self.regions)
        if own and self.mask is None:
            return 1.0
        drawn = [mask for _, mask in self.regions] + [mask for mask in [self.mask] if mask is not None and own]
        return union([fit_mask(mask, picture, "content") for mask in drawn]) if drawn else 0.0
