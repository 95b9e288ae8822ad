"""Every option that has no effect beside the others says so in one line, and the result is that without it."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

import pytest

from adaattn_core.cli import COMMANDS, build_parser, main
from adaattn_core.commands import attention, bench, compare, demo, evaluate, stylize, train
from adaattn_core.commands.shared.idle_options import PAINTING, Idle, remark_idle
from adaattn_core.training.config import TrainConfig
from tests.helpers.command_line import run
from tests.helpers.tiny_clips import write_clip

Log = pytest.LogCaptureFixture
INPUTS = "--model m.safetensors --device cpu"
SEA = f"stylize photos/sea.png --style paintings/oil.png {INPUTS} -o"
ZERO = "at --strength 0, which gives the content back"


def said(caplog: Log, keep: bool = False) -> list[str]:
    """The lines about options; all lines are then forgotten, unless they are to be kept."""
    lines = [line for line in caplog.messages if "no effect" in line]
    if not keep:
        caplog.clear()
    return lines


@pytest.mark.parametrize(
    ("line", "option", "reason"),
    [
        (f"{SEA} a.png", "--refine-content 2", "without --refine N, which it steers"),
        (f"{SEA} a.png", "--seed 3", "without --attention sampled, whose positions it draws"),
        (f"{SEA} a.png", "--style-weights 2", "with a single style"),
        *((f"{SEA} a.png --strength 0", option, ZERO) for option in (
            "--keep-color", "--temperature 2", "--attention sampled", "--stroke-size 2", "--refine 3",
            "--style-size 16", "--content-mask photos/sea.png", "--style-mask paintings/oil.png",
            "--precision float16",
        )),
        (f"{SEA} a.png --strength 0", "--region photos/sea.png paintings/ink.png", ZERO),
        (f"stylize photos/sea.png --region photos/sea.png paintings/ink.png {INPUTS} -o a.png",
         "--content-mask photos/sea.png", "without --style, whose region it is beside those of --region"),
        (f"compare --content photos --style paintings --size 32 {INPUTS} -o a.png", "--stroke-size 1",
         "on cells this small, which are painted in one pass; a larger --size makes several"),
        (f"attention photos/sea.png --style paintings/oil.png {INPUTS} -o a.html", "--precision float16",
         "on attention, which is always computed in float32"),
    ],
)  # fmt: skip
def test_an_option_without_effect_says_so(folder: Path, caplog: Log, line: str, option: str, reason: str) -> None:
    output = Path(line.split()[-1]) if "--strength" not in line else Path("a.png")
    run(line)
    expected = output.read_bytes()
    assert said(caplog) == []
    run(f"{line} {option}")
    assert said(caplog) == [f"{option.split()[0]} has no effect {reason}."]
    assert output.read_bytes() == expected


@pytest.mark.parametrize(
    "words",
    ["--refine 1 --refine-content 2", "--attention sampled --seed 3", "--style paintings/ink.png --style-weights 2,1",
     "--strength 0.5 --keep-color --temperature 2 --style-size 16", "--stroke-size 1 --seed 0 --refine-content 0"],
)  # fmt: skip
def test_an_option_with_an_effect_says_nothing(folder: Path, caplog: Log, words: str) -> None:
    run(f"{SEA} a.png {words}")
    assert said(caplog) == []


def test_resume_of_a_stream(folder: Path, caplog: Log, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    run(f"{SEA} - --resume")
    assert said(caplog) == ["--resume has no effect where the result is a stream, of which nothing stays."]


def test_a_clip_says_it_too(folder: Path, caplog: Log) -> None:
    for package in ("av", "cv2"):
        pytest.importorskip(package, reason='needs PyAV and OpenCV: pip install "adaattn[video]"')
    write_clip("clip.mp4")
    run(f"video clip.mp4 --style paintings/oil.png {INPUTS} -o a.mp4 --seed 3 --strength 0 --keep-color")
    assert said(caplog) == [
        "--seed has no effect without --attention sampled, whose positions it draws.",
        f"--keep-color has no effect {ZERO}.",
    ]


def test_an_error_stays_one_line(folder: Path, capsys: pytest.CaptureFixture[str], caplog: Log) -> None:
    assert main(shlex.split(f"{SEA} a.png --seed 3 --content-mask nope.png")) == 2
    assert capsys.readouterr().err == "adaattn: nope.png does not exist. Check its name and folder.\n"
    assert said(caplog) == []


@pytest.mark.parametrize(("rank", "count"), [(0, 1), (1, 0)])
def test_under_torchrun_the_main_process_alone_says_what_concerns_all(
    folder: Path, caplog: Log, monkeypatch: pytest.MonkeyPatch, rank: int, count: int
) -> None:
    for name, value in {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": rank}.items():
        monkeypatch.setenv(name, str(value))
    Path("photos/notes.txt").touch()
    run(f"stylize photos --style paintings/oil.png {INPUTS} -o out --seed 3")
    assert len(said(caplog, keep=True)) == count
    assert sum("1 file skipped" in line for line in caplog.messages) == count
    assert len(list(Path("out").iterdir())) == 1


# ---------------------------------------------------------------- commands that take long: their rules alone


def lines_of(rules: tuple[Idle, ...], line: str, caplog: Log) -> list[str]:
    remark_idle(rules, build_parser().parse_args(shlex.split(line)))
    return [message.partition(" no effect ")[0] for message in caplog.messages]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--lpips heads.pth", ["--lpips has"]),
        ("--lpips heads.pth --vgg16 torchvision", []),
        ("--pictures p --ablate --precision float16", ["--ablate, --precision have"]),
        ("--pictures p --model compact --ablate --precision float16", []),
    ],
)
def test_evaluate(words: str, expected: list[str], caplog: Log) -> None:
    assert lines_of(evaluate.IDLE, f"evaluate --content c --style s -o r {words}", caplog) == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [("--subjects compact,base --weights w", ["--weights has"]), ("--subjects compact,reference --weights w", [])],
)
def test_bench(words: str, expected: list[str], caplog: Log) -> None:
    assert lines_of(bench.IDLE, f"bench {words}", caplog) == expected


def test_bench_train(folder: Path, caplog: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "warmed_up_trainer", lambda config: pytest.fail("the lines come before the work"))
    with pytest.raises(pytest.fail.Exception):
        main(shlex.split("bench --repeats 2 train --workers 3 --steps 9 --output run --lr 0.1"))
    assert [line.partition(" no effect ")[0] for line in said(caplog)] == [
        "--repeats has", "--workers has", "--steps has", "--output has",
    ]  # fmt: skip


VIDEO = {"kind": "video"}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"freeze_encoder": True, "architecture": "base", "distill_steps": 3, "encoder_lr_scale": 1.0},
         "--distill-steps, --encoder-lr-scale have no effect with --freeze-encoder."),
        ({"pretrain_lr": 1.0, "distill_steps": 0, "reconstruct_steps": 0},
         "--pretrain-lr has no effect on a run that has only the style stage."),
        ({"refit_attention": True},
         "--refit-attention has no effect without --init: a new model is fitted in any case."),
        ({"init": "base", "width": 0.5}, "--width has no effect with --init, whose model has a shape of its own."),
        ({**VIDEO, "deep_lr_scale": 0.0}, "--deep-lr-scale has no effect on --kind video, which has one level."),
        ({"vgg_floor": 0.0}, "--vgg-floor has no effect on the built-in VGG-19, whose channels are normalised."),
        ({"global_weight": 0.0, "global_levels": ("relu4_1",)},
         "--global-levels has no effect with --global-weight 0 and --identity-weight 0."),
        ({"global_weight": 0.0, "relative_style": True}, "--relative-style has no effect with --global-weight 0."),
        ({"local_weight": 0.0, "local_samples": 3, "relative_local": True},
         "--relative-local, --local-samples have no effect with --local-weight 0."),
        ({"content_levels": ("relu3_1",)}, "--content-levels has no effect without --content-weight."),
        ({"similarity_weight": 1.0}, "--similarity-weight has no effect without --kind video."),
        ({**VIDEO, "similarity_weight": 0.0, "frame_gap": 2}, "--frame-gap has no effect with --similarity-weight 0."),
        ({"teacher_weight": 1.0}, "--teacher-weight has no effect without --teacher."),
        ({"teacher": "base", "teacher_weight": 0.0}, "--teacher has no effect with --teacher-weight 0."),
        ({**VIDEO, "damage": 0.5}, "--damage has no effect on pairs of frames (--kind video)."),
        ({"self_pairs": 0.0, "pixel_weight": 1.0},
         "--pixel-weight has no effect without self pairs (--self-pairs of --batch)."),
        ({"batch": 1, "styles_per_content": 2},
         "--styles-per-content has no effect on parts of a batch that hold one pair."),
        ({"steps": 0, "lr": 1.0}, "--lr has no effect with --steps 0: there is no style stage."),
        ({"steps": 7, "lr": 1.0, "content_weight": 1.0, "content_levels": ("relu3_1",)}, None),
    ],
)  # fmt: skip
def test_training(settings: dict[str, object], expected: str | None, caplog: Log) -> None:
    config = TrainConfig(content="c", style="s", output="r", **settings)  # type: ignore[arg-type]
    remark_idle(train.IDLE, config, train.changed_settings(argparse.Namespace(**settings)))
    assert caplog.messages == ([expected] if expected else [])


# ---------------------------------------------------------------- the list is complete

MODEL = "--model --device --precision"
ALWAYS = {
    "stylize": f"--style --output --strength --size {MODEL} --max-memory-gb",
    "video": f"--style --output --strength --size {MODEL} --max-memory-gb --steady --seconds --crf",
    "compare": f"--content --style --output --size --refine {MODEL}",
    "attention": "--style --output --temperature --size --style-size --model --device",
    "convert": "--encoder --output --precision",
    "export": "--output --split --precision --opset",
    "demo": "--get-runtime --write",
    "train": "--config --resume --content --style --vgg --output --steps --reconstruct-steps --batch --accumulate "
    "--crop --warmup-steps --optimizer --weight-decay --clip-norm --kind --freeze-encoder --init --seed --device "
    "--precision --compile --workers --checkpoint-every --keep-checkpoints --sample-every --tensorboard",
    "evaluate": "--content --style --output --model --pictures --vgg --vgg16 --artfid --pairs --seed --size --show "
    "--fresh --device",
    "bench": "--sizes --subjects --repeats --curve --output",
    "info": "",
}
RULES = {
    "stylize": stylize.IDLE, "video": PAINTING, "compare": compare.IDLE, "attention": attention.IDLE, "convert": (),
    "export": (), "demo": demo.IDLE,
    "train": train.IDLE, "evaluate": evaluate.IDLE, "bench": bench.IDLE, "info": (),
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_each_option_either_always_counts_or_has_a_rule(command: str) -> None:
    """A new option belongs into ALWAYS, or into a rule of its command that says when it has no effect."""
    parser = argparse.ArgumentParser()
    COMMANDS[command].add_arguments(parser)
    longest = {max(action.option_strings, key=len) for action in parser._actions if action.option_strings}
    options = {option.replace("--no-", "--") for option in longest} - {"--help"}
    if command == "evaluate":
        options = {option.replace("--judge", "--vgg16") for option in options}
    ruled = {option.replace("--no-", "--") for rule in RULES[command] for option in rule.options.split()}
    assert options - {*ALWAYS[command].split()} - ruled == set()
