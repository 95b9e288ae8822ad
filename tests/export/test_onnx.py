"""ONNX files paint what PyTorch paints, at any size, and bad input ends with one line and without a file."""

from __future__ import annotations

import importlib.util
import runpy
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adaattn_core.checkpoints.model_file import load_model, save_model
from adaattn_core.cli import main
from adaattn_core.errors import ExportError
from adaattn_core.export import check, onnx_file
from adaattn_core.export.graph import Precision
from adaattn_core.export.onnx_file import MAX_OPSET, MIN_OPSET, export_onnx
from adaattn_core.inference.stylize import stylize
from adaattn_core.io.images import load_image, save_image
from adaattn_core.models.config import COMPACT, ModelConfig
from adaattn_core.models.model import StyleTransferModel
from tests.helpers.small_models import SMALL, SMALL_VIDEO, picture, small_model

EXAMPLES = Path(__file__).parents[2] / "examples" / "onnx"
MISSING = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
needs_onnx = pytest.mark.skipif(bool(MISSING), reason='needs onnx and onnxruntime: pip install "adaattn[onnx]"')

CONFIGS = {
    "published": SMALL,
    "built-in": replace(SMALL, upsample="bilinear", style_cells=(2, 2, 1)),
    "bounded": replace(SMALL, upsample="bilinear", logit_scale=32.0, style_cells=(3, 1, 1)),
    "video": SMALL_VIDEO,
}
STEP = 1e-3
"""Of a pixel: a quarter of the 1/255 that is allowed. Rounding alone is about 1e-5 here."""


def session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the tests have the cores
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def difference(loaded: Any, model: StyleTransferModel, content: torch.Tensor, style: torch.Tensor) -> float:
    painted = loaded.run(["stylized"], {"content": content.numpy(), "style": style.numpy()})[0]
    return float(np.abs(painted - stylize(model, content, style).numpy()).max())


@needs_onnx
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_file_paints_what_the_model_paints_at_every_size(config: ModelConfig, tmp_path: Path) -> None:
    model, path = small_model(config=config), tmp_path / "m.onnx"
    export_onnx(model, path)
    loaded = session(path)
    for size, style_size in (((16, 16), (16, 16)), ((17, 41), (50, 16)), ((64, 48), (33, 65)), ((95, 31), (31, 97))):
        assert difference(loaded, model, picture(*size), picture(*style_size, seed=1)) < STEP, size


@needs_onnx
@pytest.mark.parametrize("pairs", [1, 1000])
def test_chunks_of_any_length_paint_the_same(pairs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adaattn_core.export.attention.CHUNK_PAIRS", pairs)
    model, path = small_model(), tmp_path / "m.onnx"
    export_onnx(model, path)
    assert difference(session(path), model, picture(37, 45, batch=2), picture(24, 40, seed=1)) < STEP


@needs_onnx
@pytest.mark.parametrize(
    ("precision", "opset"),
    [("float32", MIN_OPSET), ("float16", MIN_OPSET), ("int8", MIN_OPSET), ("int8", MAX_OPSET)],
)
def test_every_precision_and_opset_loads_and_is_stored_as_named(
    precision: Precision, opset: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx

    monkeypatch.setitem(check.MAX_DIFFERENCE, "float16", 255)  # limits of trained weights; random ones are more
    monkeypatch.setitem(check.MAX_MEAN_DIFFERENCE, "int8", 255)  # sensitive to rounding
    path = tmp_path / "m.onnx"
    export_onnx(small_model(), path, precision=precision, opset=opset)
    file = onnx.load(path)
    kernels = [one for one in file.graph.initializer if one.name.endswith("conv1_1.weight")]
    assert [onnx.helper.tensor_dtype_to_np_dtype(one.data_type) for one in kernels] == [np.dtype(precision)]
    assert file.opset_import[0].version == opset


@needs_onnx
def test_two_files_paint_what_one_paints(tmp_path: Path) -> None:
    model = small_model(config=CONFIGS["built-in"])
    exported = export_onnx(model, tmp_path / "m.onnx", split=True)
    assert [path.name for path in exported.paths] == ["m-style.onnx", "m-content.onnx"]
    encoder, painter = map(session, exported.paths)
    content, style = picture(40, 56), picture(48, 33, seed=1)
    names = [one.name for one in encoder.get_outputs()]
    values = dict(zip(names, encoder.run(names, {"style": style.numpy()}), strict=True))
    for one in (content, picture(17, 90, seed=2)):
        painted = painter.run(None, {"content": one.numpy(), **values})[0]
        assert np.abs(painted - stylize(model, one, style).numpy()).max() < STEP


@needs_onnx
def test_the_built_in_shape_in_float16_is_half_as_large(tmp_path: Path) -> None:
    model = small_model(config=COMPACT)
    sizes = []
    for precision in ("float32", "float16", "int8"):
        graph = onnx_file.build_graphs(model, precision, split=False)[0]
        sizes.append(sum(array.nbytes for array in graph.constants.values()))
    assert sizes[0] / sizes[1] == pytest.approx(2, rel=0.01)
    assert sizes[0] / sizes[2] == pytest.approx(4, rel=0.03)  # scales and biases remain in float32


@needs_onnx
@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_the_built_in_model_passes_the_check_in_every_precision(precision: Precision, tmp_path: Path) -> None:
    export_onnx(load_model("compact"), tmp_path / "m.onnx", precision=precision)


@needs_onnx
@pytest.mark.parametrize("split", [False, True])
def test_a_failed_check_leaves_no_file_and_says_by_how_much(
    split: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "stylize", lambda model, content, style: stylize(model, content, style) + 0.1)
    kept = tmp_path / "m.onnx"
    kept.write_text("before")
    with pytest.raises(ExportError, match=r"m.onnx is not written: .* differs by 25.5./255 .* 1/255 is allowed"):
        export_onnx(small_model(), kept, split=split)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    assert kept.read_text() == "before"


@needs_onnx
def test_not_a_number_fails_the_check(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="nan/255"):
        check._check_difference(check.Difference(float("nan"), 0.0), "float32", tmp_path / "m.onnx")


def test_the_check_has_six_pictures_and_a_strip() -> None:
    pairs = list(check.picture_pairs())
    assert len(pairs) == 6
    assert min(min(content.shape[-2:]) for content, _ in pairs) == 16


# ---------------------------------------------------------------- command


@needs_onnx
def test_the_command_writes_a_file_with_the_licence_of_the_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import onnx

    model, output = tmp_path / "m.safetensors", tmp_path / "m.onnx"
    save_model(small_model(), model, metadata={"license": "CC0-1.0"})
    assert main(["export", str(model), "-o", str(output), "--opset", "18"]) == 0
    entries = {one.key: one.value for one in onnx.load(output).metadata_props}
    assert entries["license"] == "CC0-1.0"
    assert "differs from PyTorch by at most" in capsys.readouterr().out


@needs_onnx
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("-o m.pt", "m.pt does not end in .onnx, as an ONNX file has to. Rename the output."),
        ("-o m.onnx --opset 12", "12 is out of range; it must be between 13 and 21"),
        ("-o m.onnx --precision float8", "invalid choice: 'float8'"),
        ("-o nowhere/m.onnx", "nowhere is not a folder"),
        ("other -o m.onnx", "unknown model 'other'"),
    ],
)
def test_bad_input_ends_with_one_line(
    arguments: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", *arguments.split()]) == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in {package, *MISSING}:
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["export", "-o", str(tmp_path / "m.onnx")]) == 2
    assert 'pip install "adaattn[onnx]"' in capsys.readouterr().err


# ---------------------------------------------------------------- examples


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model and two pictures, which is the working directory."""
    export_onnx(small_model(), tmp_path / "model.onnx")
    save_image(picture(40, 48), tmp_path / "photo.png")
    save_image(picture(33, 60, seed=1), tmp_path / "painting.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def expected() -> torch.Tensor:
    return stylize(small_model(), load_image("photo.png"), load_image("painting.png"))


@needs_onnx
def test_the_python_example_paints(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["paint.py", "model.onnx", "photo.png", "painting.png", "out.png"])
    runpy.run_path(str(EXAMPLES / "paint.py"), run_name="__main__")
    assert (load_image("out.png") - expected()).abs().max() < 1.01 / 255  # rounded to 8 bits


def write_raw(path: str) -> list[str]:
    """A picture as raw float32 numbers, (3, H, W), for the examples without a reader of pictures: name and size."""
    image = load_image(path)
    Path(path).with_suffix(".raw").write_bytes(image.numpy().tobytes())
    return [str(Path(path).with_suffix(".raw")), str(image.shape[-2]), str(image.shape[-1])]


def check_raw(command: list[str]) -> None:
    arguments = ["model.onnx", *write_raw("photo.png"), *write_raw("painting.png"), "out.raw"]
    result = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    painted = torch.from_numpy(np.fromfile("out.raw", np.float32)).reshape(1, 3, 40, 48)
    assert (painted - expected()).abs().max() < STEP


@needs_onnx
def test_the_node_example_paints(files: Path) -> None:
    node = shutil.which("node")
    found = node and subprocess.run([node, "-e", "require('onnxruntime-node')"], capture_output=True, check=False)
    if not node or not found or found.returncode:
        pytest.skip("needs node and onnxruntime-node: npm install onnxruntime-node, and NODE_PATH=.../node_modules")
    check_raw([node, str(EXAMPLES / "paint.js")])


@needs_onnx
def test_the_c_example_paints(files: Path) -> None:
    compiler = shutil.which("cc")
    command = [str(compiler), str(EXAMPLES / "paint.c"), "-o", "paint", "-lonnxruntime"]
    if not compiler or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs cc and ONNX Runtime's C library: CPATH=.../include LIBRARY_PATH=.../lib LD_RUN_PATH=.../lib")
    check_raw(["./paint"])
