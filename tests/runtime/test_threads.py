"""Pieces of work on several threads: in order, each on one thread, and nothing else changed by it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from adaattn_core.runtime.threads import parallel_map


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [0, 1, 2, 20])
def test_results_come_in_order(threads: int, count: int) -> None:
    assert list(parallel_map(lambda number: number * number, range(count), threads)) == [
        number * number for number in range(count)
    ]


def test_each_piece_has_one_thread_and_no_gradient(threads: int) -> None:
    weight = torch.ones(3, requires_grad=True)
    with torch.no_grad():
        seen = list(
            parallel_map(lambda number: (torch.get_num_threads(), (weight * number).requires_grad), range(8), threads)
        )
    assert seen == [(1, False)] * 8


def test_inference_mode_goes_along(threads: int) -> None:
    with torch.inference_mode():
        assert all(x.is_inference() for x in parallel_map(lambda number: torch.ones(number + 1), range(8), threads))
    with torch.no_grad():
        assert not any(x.is_inference() for x in parallel_map(lambda number: torch.ones(number + 1), range(8), threads))


def test_other_threads_keep_their_number_of_threads(threads: int) -> None:
    list(parallel_map(lambda number: torch.ones(number), range(8), threads))
    seen = list[int]()
    other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert torch.get_num_threads() == threads and seen == [threads]


def test_what_a_piece_raises_ends_the_rest(threads: int) -> None:
    begun = list[int]()

    def work(number: int) -> int:
        begun.append(number)
        time.sleep(1e-3)
        if number == 2:
            raise ValueError("broken piece")
        return number

    with pytest.raises(ValueError, match="broken piece"):
        list(parallel_map(work, range(10_000), threads))
    assert 3 <= len(begun) < 10_000
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("adaattn_")]


def test_who_stops_asking_ends_the_rest(threads: int) -> None:
    begun = list[int]()

    def work(number: int) -> None:
        begun.append(number)
        time.sleep(1e-3)

    results = parallel_map(work, range(10_000), threads)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert 1 <= len(begun) < 10_000


def test_a_thread_that_cannot_be_started_is_an_error_and_leaves_none_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    original, begun = threading.Thread.start, list[threading.Thread]()

    def start(thread: threading.Thread) -> None:
        if len(begun) == 2:
            raise RuntimeError("can't start new thread")
        begun.append(thread)
        original(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        list(parallel_map(lambda number: number, range(8), 3))
    monkeypatch.undo()
    for thread in begun:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in begun)
