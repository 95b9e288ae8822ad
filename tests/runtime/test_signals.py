"""Signals end a run once, and signals that a process was started to ignore stay ignored."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from adaattn_core.runtime.signals import GracefulShutdown, Terminated, exit_code

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Windows has neither SIGTERM to oneself nor SIGHUP")


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Handlers are those of before after each test."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    assert [signal.getsignal(number) for number in numbers] == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_each_signal_raises_and_has_its_exit_code(number: int, code: int) -> None:
    with pytest.raises(KeyboardInterrupt) as caught, GracefulShutdown():
        os.kill(os.getpid(), number)
    assert isinstance(caught.value, Terminated) == (number != signal.SIGINT)
    assert exit_code(caught.value) == code


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with GracefulShutdown():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_termination_does_not_disturb_the_first() -> None:
    cleaned = False
    with pytest.raises(Terminated) as caught, GracefulShutdown():
        try:
            os.kill(os.getpid(), signal.SIGHUP)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGHUP)
            cleaned = True
    assert cleaned
    assert caught.value.number == signal.SIGHUP


def test_ctrl_c_also_ends_a_termination_that_takes_long() -> None:
    with pytest.raises(KeyboardInterrupt) as caught, GracefulShutdown():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
    assert not isinstance(caught.value, Terminated)
