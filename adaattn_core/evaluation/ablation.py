"""Models with something left out, to see what it is worth: no training is needed for these."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import torch

from ..models.attention import AdaAttention
from ..models.model import StyleTransferModel


def attending_at(model: StyleTransferModel, levels: Sequence[str]) -> StyleTransferModel:
    """A copy that attends at these levels alone.

    At its others every query is 0, so all style positions count alike: their mean and standard deviation are AdaIN's,
    the same everywhere in the picture. Without any level it is AdaIN, with this model's encoder and decoder.

    Raises:
        ValueError: a level that the model has no attention at.
    """
    unknown = [level for level in levels if level not in model.config.levels]
    if unknown:
        raise ValueError(f"levels has {unknown[0]!r}; this model attends at {', '.join(model.config.levels)} (or none)")
    copy = deepcopy(model)
    with torch.no_grad():
        for level in copy.config.levels:
            attention = copy.fusion.attention[level]
            assert isinstance(attention, AdaAttention) and attention.query_proj.bias is not None
            if level not in levels:
                attention.query_proj.weight.zero_()
                attention.query_proj.bias.zero_()
    return copy
