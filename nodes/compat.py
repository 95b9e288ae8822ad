"""Schemas that older versions of ComfyUI understand too: one unknown keyword in one schema drops the whole pack."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

NEWER = ("advanced", "search_aliases", "essentials_category")
"""Keywords that came after the oldest ComfyUI this pack runs on, and are worth having where they are known."""


def known(make: Callable[..., T], *args: object, **options: object) -> T:
    """`make(*args, **options)` without those of NEWER that this host's `make` does not take.

    Any other unknown keyword is an error, as ever.

    >>> known(dict, a=1)
    {'a': 1}
    >>> known(lambda size: size, size=3, advanced=True)
    3
    """
    newer = [name for name in NEWER if name in options]
    if newer:
        taken = inspect.signature(make).parameters
        options = {name: value for name, value in options.items() if name not in newer or name in taken}
    return make(*args, **options)
