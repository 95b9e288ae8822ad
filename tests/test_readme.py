"""Every command and program of the README runs, on small pictures."""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
from pathlib import Path
from typing import NoReturn

import pytest
import torch

import adaattn_core
from adaattn_core.benchmarking import inference as bench
from adaattn_core.checkpoints.model_file import save_model
from adaattn_core.cli import main
from adaattn_core.commands import evaluate
from adaattn_core.errors import CheckpointError
from adaattn_core.io.images import load_image, save_image
from adaattn_core.models.encoder import VGGEncoder
from adaattn_core.training import initialization
from tests.helpers.evaluation import narrow_vgg16, narrow_vgg19
from tests.helpers.small_models import picture, small_model
from tests.helpers.tiny_clips import write_clip

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """Arguments of every `adaattn` command in the README's shell blocks; a backslash joins lines."""
    joined = [block.replace("\\\n", " ") for block in blocks("bash")]
    lines = [part for block in joined for line in block.splitlines() for part in line.split("&&")]
    words = [shlex.split(line, comments=True) for line in lines]
    return [line[1:] for line in words if line[:1] == ["adaattn"]]


PAINTING = [words for words in commands() if words[0] in ("stylize", "compare") and "--model" not in words]
CLIPS = [words for words in commands() if words[0] == "video"]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the README names; it is the working directory and the home folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ADAATTN_MODELS", raising=False)
    for seed, name in enumerate(("photo", "painting", "a", "b", "other", "mask")):
        save_image(picture(40, 48, seed=seed), f"{name}.{'png' if name == 'mask' else 'jpg'}")
    for folder in ("photos", "paintings", "examples", ".adaattn"):
        Path(folder).mkdir()
    for folder in ("photos", "paintings"):
        save_image(picture(40, 48, seed=7), f"{folder}/one.jpg")
    for name in ("coffee", "great_wave"):
        save_image(picture(40, 48, seed=8), f"examples/{name}.jpg")
    return tmp_path


def run(words: list[str]) -> None:
    assert main([os.path.expanduser(word) for word in words]) == 0, words


@pytest.mark.parametrize("script", [".ci/run", ".github/workflows/ci.yml"])
def test_the_first_command_is_the_one_that_ci_runs(script: str) -> None:
    words = shlex.join(["adaattn", *commands()[0]])
    assert words in (ROOT / script).read_text(encoding="utf-8")
    assert 'pip install -e ".[dev]" && pytest -n auto --dist loadfile' in README


@pytest.mark.parametrize("words", PAINTING, ids=" ".join)
def test_painting_commands(words: list[str], files: Path) -> None:
    run([*words, "--refine=2"] if "--refine" in words else words)
    output = files / words[words.index("-o") + 1]
    assert output.is_file() or list(output.iterdir())


def test_the_attention_is_shown(files: Path) -> None:
    (words,) = [words for words in commands() if words[0] == "attention"]
    run(words)
    assert (files / words[words.index("-o") + 1]).is_file()


@pytest.mark.parametrize("words", CLIPS, ids=" ".join)
def test_clip_commands(words: list[str], files: Path) -> None:
    for package in ("av", "cv2"):
        pytest.importorskip(package, reason='needs PyAV and OpenCV: pip install "adaattn[video]"')
    write_clip("clip.mp4", sound="aac")
    run([*words, "--size=32"])
    assert (files / words[words.index("-o") + 1]).is_file()


def test_the_published_weights_are_converted_and_used(files: Path, published: Path) -> None:
    (files / "checkpoints").symlink_to(published)
    chosen = [words for words in commands() if words[0] == "convert" or "published" in words]
    assert len(chosen) == 2
    for words in chosen:
        run(words)
    assert load_image("out.png").shape == load_image("photo.jpg").shape


def test_a_model_is_trained_and_used(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def narrow_vgg(*, normalized: bool) -> VGGEncoder:
        assert normalized, "the built-in network is normalised"
        with torch.random.fork_rng():
            return VGGEncoder((32, 64, 96, 256, 256), (2, 2, 2, 2, 1))

    monkeypatch.setattr(initialization, "load_vgg", narrow_vgg)
    quick = ["--steps=1", "--distill-steps=0", "--reconstruct-steps=0", "--crop=32", "--batch=2", "--width=0.125"]
    used = [words for words in commands() if words[0] in ("train", "stylize")]
    chosen = [words for words in used if words[0] == "train" or "runs/mine/model.safetensors" in words]
    assert len(chosen) == 2
    for words in chosen:
        run([*words, *(quick if words[0] == "train" else [])])
    assert (files / "out.png").is_file()


def test_models_and_pictures_are_evaluated(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_download(device: torch.device) -> NoReturn:
        raise CheckpointError("not in a test")

    monkeypatch.setattr(evaluate, "load_vgg", lambda source="built-in", normalized=False: narrow_vgg19())
    monkeypatch.setattr(evaluate, "load_vgg16", lambda source: narrow_vgg16())
    monkeypatch.setattr(evaluate, "package_lpips_heads", lambda: no_download(torch.device("cpu")))
    monkeypatch.setattr(evaluate, "load_lpips_alex", no_download)
    monkeypatch.setattr(evaluate, "peak_memory_gib", lambda painter, pair, size: None)
    Path("runs/mine").mkdir(parents=True)
    save_model(small_model(), "runs/mine/model.safetensors")
    Path("results").mkdir()
    save_image(picture(40, 48, seed=9), "results/one__one.png")
    chosen = [words for words in commands() if words[0] == "evaluate"]
    assert len(chosen) == 2
    for words in chosen:
        run(words)
        rows = [subject["name"] for subject in json.loads(Path("report/report.json").read_text())["subjects"]]
        assert Path("report/report.html").is_file()
    assert rows == ["compact", "mine", "other", "content unchanged", "style copied"]


def test_the_benchmark(files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = {"seconds": 1.0, "gflop": 1.0, "gigabytes": 1.0, "peak_gib": 1.0}
    monkeypatch.setattr(bench, "_measure_in_process", lambda subject, size, weights: numbers)
    (words,) = [words for words in commands() if words[0] == "bench"]
    run(words)
    assert "512 x 512" in capsys.readouterr().out


def test_every_command_is_run_by_a_test() -> None:
    assert {words[0] for words in commands()} == {
        "stylize",
        "video",
        "compare",
        "attention",
        "convert",
        "train",
        "bench",
        "evaluate",
    }


def test_the_program(files: Path) -> None:
    (program,) = blocks("python")
    Path("program.py").write_text(program, encoding="utf-8")
    names = runpy.run_path("program.py")
    assert names["result"].shape == names["content"].shape


def test_every_file_the_readme_links_to_is_there() -> None:
    targets = re.findall(r"\]\(([^)#]+)[)#]", README) + re.findall(r'<img src="([^"]+)"', README)
    assert "docs/graph.jpg" in targets
    assert [target for target in targets if "://" not in target and not (ROOT / target).exists()] == []


def test_the_site_has_every_public_name_and_every_node() -> None:
    """`mkdocs build --strict` finds broken links; it cannot know what is missing."""
    reference = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^::: adaattn_core\.\S+\.(\w+)$", reference, flags=re.MULTILINE))
    assert set(adaattn_core.__all__) <= named
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert {path.parent.name for path in (ROOT / "web" / "docs").glob("*/en.md")} == set(
        re.findall(r"nodes/(\w+)\.md", site)
    )
