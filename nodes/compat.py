"""Schemas that older versions of ComfyUI accept: a keyword that one of them does not know would drop the whole pack."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

NEWER = ("advanced", "search_aliases", "essentials_category", "bit_depth")
"""Keywords that are newer than the oldest supported ComfyUI; they are used where the host knows them."""


def call_supported(make: Callable[..., T], *args: object, **options: object) -> T:
    """`make(*args, **options)`, without the keywords of NEWER that this host's `make` does not accept.

    Any other unknown keyword is a TypeError.

    >>> call_supported(dict, a=1)
    {'a': 1}
    >>> call_supported(lambda size: size, size=3, advanced=True)
    3
    """
    newer = [name for name in NEWER if name in options]
    if newer:
        accepted = inspect.signature(make).parameters
        options = {name: value for name, value in options.items() if name not in newer or name in accepted}
    return make(*args, **options)
