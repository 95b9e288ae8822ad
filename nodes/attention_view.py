"""Data of the attention viewer as files that ComfyUI's page can read, computed once for each pair of features."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from typing import NamedTuple

from torch import Tensor

from . import bridge
from .core import stages, view_data

KEPT = 8
"""Files whose features are remembered: a graph with several viewers, and a dial that is moved back and forth."""


class _Known(NamedTuple):
    """A file, and the features that it was computed from, as long as the host keeps them."""

    features: tuple[weakref.ref[Tensor], weakref.ref[Tensor]]
    file: bridge.TemporaryFile


_known: OrderedDict[tuple[object, ...], _Known] = OrderedDict()
_written: set[bridge.TemporaryFile] = set()
_losses = 0


def losses() -> int:
    """How often files of this process were found missing: a node whose host compares this number runs again then."""
    global _losses
    missing = {file for file in _written if not file.exists()}
    _written.difference_update(missing)
    _losses += bool(missing)
    return _losses


def view_file(
    attention: bridge.Part,
    features: tuple[stages.ImageFeatures, stages.ImageFeatures],
    on_device: tuple[stages.ImageFeatures, stages.ImageFeatures],
    temperature: float,
) -> bridge.TemporaryFile:
    """The file of a content and a style: written now, or by an earlier run with the same features.

    Args:
        attention: the attention of a model.
        features: content and style as they came over the wires; they are recognised by identity.
        on_device: the same on the attention's device.
        temperature: as in `TransferOptions`.
    """
    tensors = tuple(one.levels[0] for one in features)
    key = (*map(id, tensors), attention.attention, temperature)
    known = _known.get(key)
    if known is None or not all(ref() is x for ref, x in zip(known.features, tensors, strict=True)):
        known = None
    if known is None or not known.file.exists():
        data = view_data.view_data(
            attention.module,
            *on_device,
            attention.config.encoder_convs,
            temperature=temperature,
            progress=bridge.NodeProgress(),
        )
        known = _Known((weakref.ref(tensors[0]), weakref.ref(tensors[1])), bridge.write_temporary(data, "attention"))
        _written.add(known.file)
    _known[key] = known
    _known.move_to_end(key)
    while len(_known) > KEPT:
        _known.popitem(last=False)
    return known.file
