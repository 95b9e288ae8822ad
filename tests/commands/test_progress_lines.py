"""A long run whose standard error is a pipe or a file writes a line of progress a minute there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.command_line import OIL, run


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (f"stylize photos -o out {OIL}", "2 of 2 pictures"),
        (f"compare --content photos {OIL} -o sheet.png", "1 of 1 styles"),
    ],
)
def test_a_folder_tells_how_far_it_is(
    folder: Path, line: str, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("adaattn_core.runtime.progress.LINE_SECONDS", 0.0)
    run(line)
    assert expected in capsys.readouterr().err
