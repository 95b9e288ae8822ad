"""A guest's manners: importing and using the library leaves the settings of the process as they are, and one model
serves several threads."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from adaattn_core import encode_style, stylize
from tests.helpers.small_models import SMALL, SMALL_VIDEO, picture, small_model

ROOT = Path(__file__).parents[1]

PROBE = """
import gc, importlib, locale, logging, os, random, signal, socket, sys, threading, warnings
import numpy, PIL.Image, PIL.ImageFile, torch, torch.utils.checkpoint, torchvision, safetensors.torch, einops, tqdm

def settings():
    kind, keys, *rest = numpy.random.get_state()
    root = logging.getLogger()
    return {
        "generator of random": random.getstate(),
        "generator of numpy": (kind, keys.tobytes(), *rest),
        "generator of torch": torch.get_rng_state().tolist(),
        "default dtype": torch.get_default_dtype(),
        "default device": str(torch.get_default_device()),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "gradients": torch.is_grad_enabled(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "matmul precision": torch.get_float32_matmul_precision(),
        "backends": (torch.backends.cudnn.benchmark, torch.backends.mkldnn.enabled),
        "warning filters": (list(warnings.filters), warnings.showwarning),
        "logging": (root.level, list(root.handlers), logging.root.manager.disable, logging.getLoggerClass()),
        "signal handlers": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "locale": locale.setlocale(locale.LC_ALL),
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "path": list(sys.path),
        "mask of permissions": os.umask(0o27),
        "sockets": socket.getdefaulttimeout(),
        "hooks": (sys.excepthook, threading.excepthook, sys.getrecursionlimit(), gc.get_threshold()),
        "standard streams": (sys.stdin, sys.stdout, sys.stderr),
        "limits of Pillow": (PIL.Image.MAX_IMAGE_PIXELS, PIL.ImageFile.LOAD_TRUNCATED_IMAGES),
    }

def changes(before):
    now = settings()
    return [name for name in now if now[name] != before[name]]

os.umask(0o27)
torch.set_default_dtype(torch.float64)
torch.set_num_threads(2)
torch.manual_seed(5)
warnings.simplefilter("always", DeprecationWarning)
socket.setdefaulttimeout(77)
PIL.ImageFile.LOAD_TRUNCATED_IMAGES, PIL.Image.MAX_IMAGE_PIXELS = True, 100
before = settings()
"""

USE = """
import pathlib, pkgutil
import adaattn_core
for module in pkgutil.walk_packages(adaattn_core.__path__, "adaattn_core."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(*[f"import: {name}" for name in changes(before)], sep="\\n")
from adaattn_core import encode_style, load_image, load_model, load_vgg, refine, save_image, stylize
from adaattn_core.io.images import load_mask
from tests.helpers.small_models import picture
save_image(picture(40, 56).float(), "content.png", alpha=torch.rand(1, 1, 40, 56, generator=torch.Generator()).float())
save_image(picture(48, 32, seed=1).float(), "style.tif")
content, style, mask = load_image("content.png"), load_image("style.tif"), load_mask("content.png")
model = load_model("compact")
painted = encode_style(model, style)
result = stylize(model, content, [painted, style], content_mask=mask, strength=0.5, keep_color=True, temperature=1.5)
stylize(model, content, style, attention="sampled", seed=3)
stylize(load_model(dtype=torch.bfloat16), content, style, max_memory_gb=1)
finer = refine(result, content, style, steps=1)
save_image(finer, "result.jpg")
for name in ("missing.png", "content.png"):
    try:
        load_model(name) if name == "content.png" else load_image(name)
    except adaattn_core.errors.AdaAttNError:
        pass
assert result.dtype == finer.dtype == torch.float32, "not float32, whatever the default"
print(*[f"use: {name}" for name in changes(before)], sep="\\n")
"""

RUDE = """
random.random(); numpy.random.rand(); torch.rand(1)
torch.set_default_dtype(torch.float32); torch.set_num_threads(1); torch.set_grad_enabled(False)
warnings.simplefilter("ignore"); logging.basicConfig(); signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.environ["A_NEW_ONE"] = "1"; os.chdir("/"); sys.path.append("x"); os.umask(0); socket.setdefaulttimeout(1)
PIL.Image.MAX_IMAGE_PIXELS = None; sys.setrecursionlimit(5000); torch.set_float32_matmul_precision("medium")
torch.use_deterministic_algorithms(True); torch.backends.cudnn.benchmark = True; sys.stdout.flush()
torch.set_default_device("meta"); sys.stdin = None
print(*changes(before), sep="\\n")
"""


def output_of(program: str, folder: Path) -> list[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"}
    result = subprocess.run(
        [sys.executable, "-B", "-c", PROBE + program], cwd=folder, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return [line for line in result.stdout.splitlines() if line]


def test_import_and_use_change_no_setting_of_the_process(tmp_path: Path) -> None:
    """The host draws random numbers, computes in float64 and lets Pillow read truncated files, before and after."""
    assert output_of(USE, tmp_path) == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="umask and signals are those of POSIX")
def test_the_probe_finds_every_change(tmp_path: Path) -> None:
    found = output_of(RUDE, tmp_path)
    missing = {"locale"}  # what is installed differs between machines
    names = [line.split('"')[1] for line in PROBE.splitlines() if line.startswith('        "')]
    assert set(found) == set(names) - missing


@pytest.mark.parametrize("config", [SMALL, SMALL_VIDEO], ids=["image", "video"])
def test_one_model_in_eight_threads_equals_one_thread_bit_for_bit(config: object) -> None:
    """Sizes differ, so that a buffer that two threads shared would be seen."""
    model = small_model(config=config)  # type: ignore[arg-type]
    styles = [encode_style(model, picture(32 + 8 * index, 40, seed=index)) for index in range(3)]

    def paint(index: int) -> Tensor:
        content = picture(24 + 3 * (index % 7), 80 - 5 * (index % 5), seed=index)
        mask = torch.linspace(0, 1, content.shape[-1]).expand(1, 1, *content.shape[-2:])
        with torch.inference_mode():
            return stylize(model, content, styles[index % 3], content_mask=mask, strength=0.5 + index / 64)

    alone = [paint(index) for index in range(32)]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(paint, range(32)))
    for index, (one, other) in enumerate(zip(alone, together, strict=True)):
        assert torch.equal(one, other), index


PAINT = """
import sys, torch
from adaattn_core.inference.stylize import stylize
from tests.helpers.small_models import picture, small_model
torch.set_num_threads(int(sys.argv[1]))
result = stylize(small_model(), picture(90, 120), picture(80, 100, seed=1), attention=sys.argv[2], seed=5)
sys.stdout.buffer.write(result.mul(255).add(0.5).byte().numpy().tobytes())
"""


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["exact", "sampled"])
def test_another_process_paints_the_same_bytes_and_another_number_of_threads_nearly(attention: str) -> None:
    """Sums in another order: at most 1 in 10,000 values differs, by 1, as docs/reliability.md says."""

    def bytes_of(threads: int) -> Tensor:
        command = [sys.executable, "-B", "-c", PAINT, str(threads), attention]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        output = subprocess.run(command, env=environment, capture_output=True, check=True).stdout
        return torch.frombuffer(bytearray(output), dtype=torch.uint8).int()

    one, again, two = bytes_of(1), bytes_of(1), bytes_of(2)
    assert len(one) == 3 * 90 * 120
    assert torch.equal(one, again)
    assert torch.equal(two, bytes_of(2))
    difference = (one - two).abs()
    assert int(difference.max()) <= 1 and int((difference > 0).sum()) <= len(one) / 10_000
