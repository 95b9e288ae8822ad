"""Every example workflow runs to the picture it promises, with nothing of the user's but the Run button."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.comfyui.conditions import require_checkout
from tests.comfyui.graphs import changed
from tests.comfyui.host import ROOT, Host, Picture, Prompt, Run, shipped_files
from tests.comfyui.thumbnails import STILL, as_still
from tests.comfyui.workflow import as_prompt, load, without_sampler

require_checkout()

FOLDER = ROOT / "example_workflows"
EXAMPLES = sorted(path.stem for path in FOLDER.glob("*.json"))

OTHERS = ("06_after_a_diffusion_sampler", "07_frames_of_a_clip", "08_where_the_attention_looks")
STILLS = [name for name in EXAMPLES if name not in OTHERS]
"""Examples with one picture in and one out."""

PAINTED = 8.0
"""Mean absolute difference, of 255, between a painted picture and its content: what a glance sees."""


def example(host: Host, name: str) -> Prompt:
    return as_prompt(load(FOLDER / f"{name}.json"), host.get("/object_info"))


def of_kind(prompt: Prompt, kind: str) -> list[str]:
    return [node for node, entry in prompt.items() if entry["class_type"] == kind]


def bundled(name: str, folder: str = "") -> Picture:
    (path,) = (ROOT / "examples" / folder).glob(f"{name}.*")
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L" if folder else "RGB"))


def content_name(prompt: Prompt) -> str:
    """The bundled picture of the node titled as content: the first one."""
    return str(prompt[of_kind(prompt, "AdaAttN_ExamplePicture")[0]]["inputs"]["picture"])


def difference(one: Picture, other: Picture) -> float:
    return float(np.abs(one.astype(float) - other.astype(float)).mean())


@pytest.fixture(scope="module")
def runs(host: Host) -> dict[str, Run]:
    """What ran already: an example that two tests look at runs once."""
    return {}


def result(host: Host, runs: dict[str, Run], name: str) -> tuple[Prompt, Run]:
    if name not in runs:
        runs[name] = host.paint(without_sampler(example(host, name), STILL))
    return runs[name].prompt, runs[name]


def saved(host: Host, run: Run) -> list[Picture]:
    return [picture for node in of_kind(run.prompt, "SaveImage") for picture in host.pictures(run, node)]


@pytest.mark.parametrize("name", STILLS)
def test_a_picture_is_painted(host: Host, runs: dict[str, Run], name: str) -> None:
    prompt, run = result(host, runs, name)
    (picture,) = saved(host, run)
    content = bundled(content_name(prompt))
    assert picture.shape == content.shape
    assert picture.std() > 20
    assert difference(picture, content) > PAINTED


def test_around_the_mask_it_is_the_content_to_the_pixel(host: Host, runs: dict[str, Run]) -> None:
    """The example inverts the subject's mask and feathers it by 4 pixels to either side of its edge."""
    prompt, run = result(host, runs, "03_masked_subject")
    (picture,) = saved(host, run)
    content, subject = bundled(content_name(prompt)), bundled(content_name(prompt), "masks")
    inside, outside = _shrunk(subject == 255, 4), _shrunk(subject == 0, 4)
    assert inside.mean() > 0.2, "the subject is too small to say anything"
    assert np.array_equal(picture[inside], content[inside])
    assert difference(picture[outside], content[outside]) > PAINTED


def _shrunk(area: np.ndarray[Any, np.dtype[np.bool_]], pixels: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """An area without what lies within so many pixels of its edge, by rows, columns or diagonals."""
    for axis in (0, 1):
        area = np.logical_and.reduce([np.roll(area, shift, axis) for shift in range(-pixels, pixels + 1)])
    return area


def blueness(pixels: Picture) -> float:
    """(N, 3) -> blue less red, on average."""
    return float(pixels[:, 2].astype(float).mean() - pixels[:, 0].astype(float).mean())


def test_a_region_takes_after_its_region(host: Host, runs: dict[str, Run]) -> None:
    """The cup is painted from the sky, which is bluer than the village, and the table from the village; with the
    masks of the mix swapped it is the other way round."""
    prompt, run = result(host, runs, "04_region_to_region")
    style, village = bundled("auvers"), bundled("auvers", "masks") > 127
    assert blueness(style[~village]) > blueness(style[village])
    (mix,) = of_kind(prompt, "AdaAttN_MixStyles")
    inputs = prompt[mix]["inputs"]
    swapped = host.paint(changed(prompt, mix, mask_1=inputs["mask_2"], mask_2=inputs["mask_1"]))
    cup = bundled("coffee", "masks") > 127
    (one,), (other,) = saved(host, run), saved(host, swapped)
    assert blueness(one[cup]) > blueness(other[cup]) + 10
    assert blueness(one[~cup]) < blueness(other[~cup]) - 10


def test_a_mix_lies_between_its_styles(host: Host, runs: dict[str, Run]) -> None:
    prompt, run = result(host, runs, "05_two_styles_mixed")
    (mixed,) = saved(host, run)
    (mix,) = of_kind(prompt, "AdaAttN_MixStyles")
    alone = []
    for weights in ({"weight_1": 1.0, "weight_2": 0.0}, {"weight_1": 0.0, "weight_2": 1.0}):
        alone += saved(host, host.paint(changed(prompt, mix, **weights)))
    apart = difference(*alone)
    assert apart > PAINTED
    assert all(difference(mixed, one) < apart for one in alone)


def test_the_sky_is_painted_in_the_style_of_its_region(host: Host, runs: dict[str, Run]) -> None:
    """From a village under a blue sky, and the land from a dance in the dark; with the mask as it came, the styles
    change places."""
    prompt, run = result(host, runs, "09_sky_and_land")
    (region,) = of_kind(prompt, "AdaAttN_StyleRegion")
    swapped = host.paint(changed(prompt, region, mask_invert=False))
    land = bundled("ramparts", "masks")
    (one,), (other,) = saved(host, run), saved(host, swapped)
    sky = _shrunk(land == 0, 12)
    assert blueness(one[sky]) > blueness(other[sky]) + 10
    assert one[land == 255].mean() < other[land == 255].mean() - 10


def test_a_diffusion_result_is_painted(host: Host, runs: dict[str, Run]) -> None:
    """With a still in place of the sampler, whose checkpoint is not here."""
    _, run = result(host, runs, "06_after_a_diffusion_sampler")
    still = bundled(STILL["still"]["inputs"]["picture"])
    (shown,) = [host.picture(run, node) for node in of_kind(run.prompt, "PreviewImage")]
    (final,) = saved(host, run)
    assert shown.shape == still.shape
    assert difference(shown, still) > PAINTED
    assert np.array_equal(shown, final)


def test_the_sampler_that_is_taken_out_is_wired_as_the_host_wants_it(host: Host) -> None:
    """The part that does not run is checked against the host's schemas: only the checkpoint's file is missing."""
    answer = json.loads(host.fetch("/prompt", {"prompt": example(host, "06_after_a_diffusion_sampler")}))
    complaints = [error for node in answer["node_errors"].values() for error in node["errors"]]
    assert [error["type"] for error in complaints] == ["value_not_in_list"], complaints
    assert "ckpt_name" in complaints[0]["details"]


def test_a_clip_becomes_a_video(host: Host, runs: dict[str, Run]) -> None:
    prompt, run = result(host, runs, "07_frames_of_a_clip")
    (node,) = of_kind(prompt, "SaveVideo")
    (file,) = host.files(run, node)
    assert file["filename"].endswith(".mp4")
    assert (host.base / "output" / file["subfolder"] / file["filename"]).stat().st_size > 10_000
    stills = as_still(prompt)
    again = host.paint(stills)
    pictures, contents = (host.pictures(again, place) for place in (node, "clip"))
    assert len(pictures) == len(contents) > 1
    assert all(difference(one, other) > PAINTED for one, other in zip(pictures, contents, strict=True))
    assert all(difference(one, other) > 1 for one, other in zip(pictures, pictures[1:], strict=False))


def test_the_attention_is_shown_on_the_style(host: Host, runs: dict[str, Run]) -> None:
    """A point in the sky looks higher up in the painting than a point on the shore does."""
    prompt, run = result(host, runs, "08_where_the_attention_looks")
    assert all(host.picture(run, node).shape == bundled("auvers").shape for node in of_kind(prompt, "PreviewImage"))
    for node in of_kind(prompt, "AdaAttN_AttentionMap"):
        prompt = changed(prompt, node, opacity=1.0)
    bare = host.paint(prompt)
    sky, shore = (host.picture(bare, node) for node in of_kind(prompt, "PreviewImage"))
    assert middle_row(sky) < middle_row(shore)


def middle_row(heat: Picture) -> float:
    """Centre of what is lit, as a share of the height."""
    rows = heat.astype(float).sum(axis=(1, 2))
    return float((rows * np.arange(len(rows))).sum() / rows.sum() / len(rows))


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_names_no_input_that_is_gone(host: Host, info: dict[str, Any], name: str) -> None:
    for entry in example(host, name).values():
        schema = info[entry["class_type"]]["input"]
        known = {*schema.get("required", {}), *schema.get("optional", {})}
        assert set(schema.get("required", {})) <= set(entry["inputs"])
        stray = {key for key in entry["inputs"] if key.partition(".")[0] not in known}
        assert stray == set(), f"{entry['class_type']} has no {stray}"


def test_a_run_leaves_no_trace_in_the_pack(host: Host) -> None:
    """What a node writes goes to the host's folders."""
    files = [path for path in host.pack.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {path.relative_to(host.pack).as_posix() for path in files} == set(shipped_files())
