"""The progress line on stderr, and callbacks for parts of the work."""

from __future__ import annotations

import io
import sys

import pytest
import tqdm.std

from adaattn_core.runtime.progress import StepCounter, progress_bar, sub_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def stderr_as(output: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    monkeypatch.setattr(sys, "stderr", output)
    return output


@pytest.mark.parametrize(
    ("stream", "enabled", "shows"),
    [(Terminal, None, True), (io.StringIO, None, False), (Terminal, False, False), (io.StringIO, True, True)],
)
def test_progress_shows_on_a_terminal_unless_told_otherwise(
    stream: type[io.StringIO], enabled: bool | None, shows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = stderr_as(stream(), monkeypatch)
    with progress_bar(3, enabled=enabled) as bar:
        for _ in range(3):
            bar.set_postfix_str("loss 0.5", False)
            bar.update()
    assert ("3/3" in output.getvalue()) == shows == bool(output.getvalue())


def test_the_line_starts_at_the_initial_unit_and_names_unit_and_postfix(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = stderr_as(Terminal(), monkeypatch)
    with progress_bar(4, initial=1, unit="picture") as bar:
        bar.set_postfix_str("loss 0.5", False)
        bar.update()
        bar.update(2)
    first, *_, last = terminal.getvalue().split("\r")[1:]
    assert "1/4 [" in first and "4/4 [" in last
    assert " picture/s" in last and "loss 0.5" in last and last[-1] == "\n"


def test_without_a_total_the_line_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = stderr_as(Terminal(), monkeypatch)
    with progress_bar(None, unit="frame") as bar:
        bar.update(20)
    assert "20 frame [" in terminal.getvalue() and "/20" not in terminal.getvalue()


def test_the_line_is_not_rewritten_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = stderr_as(Terminal(), monkeypatch)
    with progress_bar(1000) as bar:
        for _ in range(1000):
            bar.update()
    assert terminal.getvalue().count("\r") < 100


def test_parts_of_the_work_report_their_fraction_of_the_whole() -> None:
    reported: list[float] = []
    part = sub_progress(reported.append, 0.5, 0.75)
    assert part is not None and sub_progress(None, 0.0, 1.0) is None
    for fraction in (0.0, 0.5, 1.0):
        part(fraction)
    assert reported == [0.5, 0.625, 0.75]


def test_a_fraction_moves_the_line_by_whole_steps_of_one_job_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr_as(io.StringIO(), monkeypatch)
    counts: list[float] = []
    with progress_bar(8, enabled=True) as bar:
        counter = StepCounter(bar, 4)
        for fraction in (0.1, 0.3, 0.3, 0.8):
            counter(fraction)
            counts.append(bar.n)
        counter.finish()
        counts.append(bar.n)
        counter(0.6)
        counts.append(bar.n)
    assert counts == [0, 1, 1, 3, 4, 6]


def test_a_pipe_gets_a_line_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step takes 25 seconds here: lines after 75 and 150 seconds, and none for a short run."""
    now = 1000.0
    monkeypatch.setattr("adaattn_core.runtime.progress.monotonic", lambda: now)
    pipe = stderr_as(io.StringIO(), monkeypatch)
    with progress_bar(100, initial=10, piped=True) as bar:
        for step in range(6):
            now += 25
            bar.set_postfix_str(f"loss 0.{step}", False)
            bar.update()
            assert len(pipe.getvalue().splitlines()) == (step + 1) // 3
    first, second, *last = pipe.getvalue().splitlines()
    assert first.startswith("13 of 100 steps, loss 0.2, ") and "elapsed" in first and "left" in first
    assert second.startswith("16 of 100 steps, loss 0.5, ")
    assert [line for line in last if not line.startswith("16 of 100")] == []
    assert "\r" not in pipe.getvalue() and "\x1b" not in pipe.getvalue()


@pytest.mark.parametrize("jump", [-3600.0, 3600.0])
def test_a_clock_that_is_set_changes_no_line(jump: float, monkeypatch: pytest.MonkeyPatch) -> None:
    now, clock = 1000.0, 1e9
    monkeypatch.setattr("adaattn_core.runtime.progress.monotonic", lambda: now)
    monkeypatch.setattr(tqdm.std, "time", lambda: clock)
    pipe = stderr_as(io.StringIO(), monkeypatch)
    with progress_bar(100, piped=True) as bar:
        for _ in range(3):
            clock += jump
            now += 61
            bar.update()
    first, second, third, *_ = pipe.getvalue().splitlines()
    assert first.startswith("1 of 100 steps, 01:01 elapsed, ")
    assert second.startswith("2 of 100 steps, 02:02 elapsed, ") and third.startswith("3 of 100 steps, 03:03 elapsed, ")


def test_a_short_run_writes_nothing_to_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = stderr_as(io.StringIO(), monkeypatch)
    with progress_bar(2, piped=True) as bar:
        bar.update(2)
    assert pipe.getvalue() == ""


def test_a_terminal_gets_the_same_line_with_and_without_piped(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = stderr_as(Terminal(), monkeypatch)
    with progress_bar(2, piped=True) as bar:
        bar.update(2)
    assert "2/2" in terminal.getvalue()
