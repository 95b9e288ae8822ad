"""The GPU benchmark runs (tested on the CPU), and it finds synchronisations where there are some."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from adaattn_core import save_model
from adaattn_core.benchmarking.scaling import flops
from adaattn_core.inference.memory_budget import ChunkSizes, content_budget
from adaattn_core.inference.stages import decode
from adaattn_core.ops.chunked_attention import CHUNK_BYTES, default_chunk_bytes
from benchmarks import gpu
from tests.helpers.small_models import picture, small_model

CPU = torch.device("cpu")


def test_the_script_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model(small_model(), tmp_path / "m.safetensors")
    output, trace = tmp_path / "gpu.json", tmp_path / "trace.json"
    words = f"--device cpu --side 32 --frame 32x48 --memory-sizes 16x16,32x32 --repeats 1 --output {output}".split()
    assert gpu.main([*words, "--model", str(tmp_path / "m.safetensors"), "--trace", str(trace)]) == 0
    found = json.loads(output.read_text())
    assert found == json.loads(capsys.readouterr().out)
    assert found["speed"]["times_the_floor"] > 1
    assert found["speed"]["pictures_a_second_style_cached"] > 0 < found["frames"]["frames_a_second"]
    assert [row["size"] for row in found["memory"]] == [[16, 16], [32, 32]]
    assert json.loads(trace.read_text())["traceEvents"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="shows what happens without a GPU")
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main([]) == 2
    error = capsys.readouterr().err
    assert error.startswith("this benchmark needs a GPU that torch can use, and there is none. Install a CUDA build")
    assert error.count("\n") == 1


def test_nothing_between_check_and_result_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks of the picture's range, of features and of the result, which run on the CPU only, are replaced as on an
    accelerator."""
    assert gpu.waits(small_model(), CPU, 64) != []
    monkeypatch.setattr(gpu, "clamp_pictures", lambda pictures: pictures.clamp(0, 1))
    monkeypatch.setattr("adaattn_core.inference.stages.is_finite", lambda values: True)
    assert gpu.waits(small_model(), CPU, 64) == []


@pytest.mark.parametrize("look", [lambda x: x.sum().item(), lambda x: bool(x.any()), lambda x: x.nonzero()])
def test_a_wait_is_found(look: Callable[[Tensor], object], monkeypatch: pytest.MonkeyPatch) -> None:
    def looked_at(*args: object) -> Tensor:
        result = decode(*args)  # type: ignore[arg-type]
        look(result)
        return result

    monkeypatch.setattr("benchmarks.gpu.decode", looked_at)
    monkeypatch.setattr(gpu, "clamp_pictures", lambda pictures: pictures.clamp(0, 1))
    assert gpu.waits(small_model(), CPU, 32) != []


def test_the_floor_is_arithmetic_or_traffic() -> None:
    model = small_model()
    fast, slow = 1e30, 1e6
    arithmetic = gpu.floor_milliseconds(model, gpu.Rates(slow, slow, fast), 64)
    traffic = gpu.floor_milliseconds(model, gpu.Rates(fast, fast, slow), 64)
    weights = 4 * sum(parameter.numel() for parameter in model.parameters())
    assert traffic == pytest.approx(1000 * (weights + 3 * 4 * 3 * 64 * 64) / slow)
    counted = flops(model.config, 64)
    assert arithmetic == pytest.approx(1000 * (counted.convolutions + counted.attention) / slow)


def test_accelerators_get_larger_blocks() -> None:
    model, content = small_model(), picture(64, 64)
    assert default_chunk_bytes(CPU) == CHUNK_BYTES < default_chunk_bytes(torch.device("cuda"))
    assert content_budget(model, content, [], 1.0, None, 1) == ChunkSizes(items=1)
    assert content_budget(model.to("meta"), content, [], 1.0, None, 1).chunk_bytes == default_chunk_bytes(
        torch.device("meta")
    )
