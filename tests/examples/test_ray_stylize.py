"""examples/ray_stylize.py on a local Ray: shards in and out, as one process would paint them, each sample once."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from adaattn_core import load_image, load_model, save_image, stylize
from tests.helpers.small_models import picture

ROOT = Path(__file__).parents[2]
SECONDS = 600
"""Starting Ray and its workers takes half a minute, and several times that where other work is going on."""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not find_spec("ray"), reason='needs Ray Data: pip install "adaattn[scale]"'),
    pytest.mark.skipif(os.name != "posix", reason="SIGKILL for a group of processes"),
]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: style.png, and in/ with three shards of five samples, one of which is no picture."""
    monkeypatch.chdir(tmp_path)
    save_image(picture(64, 64, seed=99), "style.png")
    Path("in").mkdir()
    for number in range(3):
        write_shard(number)
    return tmp_path


def write_shard(number: int) -> None:
    members = {}
    for sample in range(5):
        name = f"{sample:04}.{'png' if sample % 2 else 'jpg'}"
        save_image(picture(96, 128, seed=10 * number + sample), name)
        members[name] = Path(name).read_bytes()
    members["0003.png"] = b"no picture"
    members["0003.txt"] = b"a caption"
    with tarfile.open(f"in/{number:05}.tar", "w") as shard:
        for name in sorted(members):
            member = tarfile.TarInfo(name)
            member.size = len(members[name])
            shard.addfile(member, io.BytesIO(members[name]))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As in the painters of Ray: with another number of threads single bytes may differ (docs/reliability.md)."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def start(*words: str) -> subprocess.Popen[str]:
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",
    }  # fmt: skip
    line = ["in", "--style", "style.png", "-o", "out", "--rows", "1", "--cpus", ".5", "--painters", "1", *words]
    return subprocess.Popen(
        [sys.executable, str(ROOT / "examples" / "ray_stylize.py"), *line], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def run(*words: str) -> str:
    process = start(*words)
    output, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, output
    return output


def kill_after_the_first_shard(process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + SECONDS
    while not [path for path in Path("out-progress").rglob("*.parquet") if ".pending" not in path.name]:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def members() -> list[tuple[str, bytes]]:
    """Name and content of every member of the results."""
    found = []
    for path in Path("out").glob("*.tar"):
        with tarfile.open(path) as shard:
            for member in shard:
                file = shard.extractfile(member)
                assert file is not None
                found.append((member.name, file.read()))
    return found


def expected_names(*shards: int) -> list[str]:
    names = ["0000.jpg", "0001.png", "0002.jpg", "0003.error.txt", "0003.txt", "0004.jpg"]
    return sorted(f"{shard:05}/{name}" for shard in shards for name in names)


@pytest.mark.usefixtures("one_thread")
def test_each_sample_is_painted_once_also_after_a_kill_and_with_shards_that_came_later(desk: Path) -> None:
    kill_after_the_first_shard(start())
    write_shard(3)
    output = run()
    results = dict(members())
    assert sorted(name for name, _ in members()) == expected_names(0, 1, 2, 3), output
    assert results["00001/0003.txt"] == b"a caption"
    assert results["00001/0003.error.txt"].startswith(b"png is not a picture that can be read")
    model, style = load_model("compact"), load_image("style.png")
    for number in (0, 3):
        save_image(picture(96, 128, seed=10 * number), "content.jpg")
        save_image(stylize(model, load_image("content.jpg"), style), "painted.jpg")
        assert results[f"{number:05}/0000.jpg"] == Path("painted.jpg").read_bytes()


def test_another_style_into_the_same_folder_is_refused(desk: Path) -> None:
    Path("out-progress", "0123456789ab").mkdir(parents=True)
    process = start()
    output, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert output == "out holds results of another style, model or --size. Choose another --output.\n"
