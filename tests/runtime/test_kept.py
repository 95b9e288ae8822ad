"""Results that are kept: for equal keys alone, and never more bytes than the limit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from adaattn_core.runtime.kept import Kept, Shelf, digest, tensor_bytes

KILO = 1024


def maker(made: Counter[str], name: str, size: int = KILO) -> Callable[[], Tensor]:
    def make() -> Tensor:
        made[name] += 1
        return torch.zeros(size, dtype=torch.uint8)

    return make


def test_a_value_is_made_once() -> None:
    kept, made = Kept(4 * KILO), Counter[str]()
    first = kept.get("a", maker(made, "a"))
    assert kept.get("a", maker(made, "a")) is first and made == {"a": 1}


def test_the_values_used_last_stay() -> None:
    kept, made = Kept(2 * KILO), Counter[str]()
    for name in "abaca":
        kept.get(name, maker(made, name))
    assert made == {"a": 1, "b": 1, "c": 1}
    kept.get("b", maker(made, "b"))
    assert made["b"] == 2 and kept.bytes == 2 * KILO


def test_a_value_over_the_limit_is_given_and_pushes_nothing_out() -> None:
    kept, made = Kept(2 * KILO), Counter[str]()
    kept.get("a", maker(made, "a"))
    assert len(kept.get("large", maker(made, "large", 3 * KILO))) == 3 * KILO
    kept.get("a", maker(made, "a"))
    assert kept.bytes == KILO and made == {"a": 1, "large": 1}


def test_an_error_keeps_nothing() -> None:
    kept = Kept(KILO)
    with pytest.raises(RuntimeError, match="stopped"):
        kept.get("a", lambda: (_ for _ in ()).throw(RuntimeError("stopped")))
    assert kept.get("a", lambda: 7) == 7


def test_shelves_do_not_see_each_others_values() -> None:
    shelf, made = Shelf(Kept(9 * KILO)), Counter[str]()
    for one in (shelf, shelf.under("x"), shelf.under("y")):
        one.get("a", maker(made, "a"))
    assert made["a"] == 3
    shelf.under("x").get("a", maker(made, "a"))
    assert made["a"] == 3 and shelf.fits(9 * KILO) and not shelf.fits(9 * KILO + 1)


def test_bytes_are_those_of_the_memory_behind_views() -> None:
    base = torch.zeros(100, dtype=torch.uint8)
    assert tensor_bytes({"a": (base[:1], [base[5:]]), "b": 7}) == 100


def test_equal_values_have_equal_digests_and_others_do_not() -> None:
    x = torch.arange(6.0)
    different = [x, x + 1, x.half(), x.reshape(2, 3), None, (x, None), (None, x), 1, 1.0, "1", torch.zeros(0), -0.0]
    assert len({digest(value) for value in different}) == len(different)
    assert digest(x.reshape(2, 3).mT) == digest(x.reshape(2, 3).mT.clone())
