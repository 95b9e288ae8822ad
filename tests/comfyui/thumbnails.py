"""Make the thumbnails of the example workflows again, by running them.

Run in the repository: COMFYUI_PATH=checkout python -m tests.comfyui.thumbnails
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageOps

from tests.comfyui.host import ROOT, Host, Picture, Prompt
from tests.comfyui.workflow import as_prompt, load, without_sampler

SIDE = 400
STILL: Prompt = {"still": {"class_type": "AdaAttN_ExamplePicture", "inputs": {"picture": "ramparts", "frames": 1}}}
SHOWING = ("SaveImage", "PreviewImage")


def thumbnail(before: Picture, after: Picture) -> Image.Image:
    """The result as a square, with the content in its corner."""
    result = ImageOps.fit(Image.fromarray(after), (SIDE, SIDE))
    small = ImageOps.expand(ImageOps.fit(Image.fromarray(before), (SIDE // 3, SIDE // 3)), SIDE // 100, "white")
    result.paste(small, (SIDE // 30, SIDE - small.height - SIDE // 30))
    return result


def as_still(prompt: Prompt) -> Prompt:
    """The same with its video, and the clip that it was made from, shown as pictures."""
    stills: Prompt = {}
    for node, entry in prompt.items():
        if entry["class_type"] != "SaveVideo":
            stills[node] = entry
            continue
        made = entry["inputs"]["video"][0]
        stills[node] = {"class_type": "PreviewImage", "inputs": {"images": [made, 0]}}
        clip = prompt[made]["inputs"]["content"]
        stills["frames"] = {"class_type": "GetVideoComponents", "inputs": {"video": clip}}
        stills["clip"] = {"class_type": "PreviewImage", "inputs": {"images": ["frames", 0]}}
    return stills


def paint(host: Host, path: Path) -> Image.Image:
    """Run an example -> its thumbnail."""
    prompt = as_still(without_sampler(as_prompt(load(path), host.get("/object_info")), STILL))
    run = host.paint(prompt)
    pictures = [node for node, entry in prompt.items() if entry["class_type"] == "AdaAttN_ExamplePicture"]
    content = next((node for node in ("still", "clip") if node in prompt), pictures[0])
    shown = [node for node, entry in prompt.items() if entry["class_type"] in SHOWING and node != content]
    return thumbnail(host.pictures(run, content)[0], host.pictures(run, shown[0])[0])


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as base,
        Host(Path(os.environ["COMFYUI_PATH"]), Path(base), os.environ.get("PYTHON") or sys.executable) as host,
    ):
        for path in sorted((ROOT / "example_workflows").glob("*.json")):
            paint(host, path).save(path.with_suffix(".jpg"), quality=88)


if __name__ == "__main__":
    main()
