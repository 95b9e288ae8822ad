"""What of the nodes does not need ComfyUI: choices, conversions, and how the pack is put together."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from adaattn_core import convert_published, load_model, load_vgg, save_model
from adaattn_core.checkpoints.model_file import fingerprint
from tests.helpers.comfy_pack import ROOT, load_pack, pack_module
from tests.helpers.node_schemas import node_schemas
from tests.helpers.small_models import picture, small_model

files, pictures, compat = (pack_module(f"nodes.{name}") for name in ("files", "pictures", "compat"))
CheckpointError = pack_module("adaattn_core.checkpoints.model_file").CheckpointError
CONTENT = picture(40, 60)


# ---------------------------------------------------------------- how it is put together


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Level (dots) and name of everything a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.level, node.module or ""


def test_importing_the_pack_imports_no_comfyui() -> None:
    import sys

    before = set(sys.modules)
    assert load_pack().WEB_DIRECTORY == "./web"
    assert not {name for name in set(sys.modules) - before if name.partition(".")[0] in ("comfy", "comfy_api")}
    assert (ROOT / "web").is_dir()
    assert not hasattr(load_pack(), "NODE_CLASS_MAPPINGS"), "it would hide comfy_entrypoint from ComfyUI"


def test_only_the_bridge_knows_comfyuis_inside() -> None:
    """Types come from comfy_api; everything else of ComfyUI through one module. The rest of the pack is relative."""
    for path in sorted((ROOT / "nodes").glob("*.py")):
        for level, name in imports_of(path):
            top = name.partition(".")[0]
            if level == 0 and top in ("comfy", "folder_paths", "nodes", "server", "execution"):
                assert path.name == "bridge.py", f"{path.name} imports {name}"
            assert level or top != "adaattn_core" or path.name == "core.py", f"{path.name} imports {name} absolutely"


def test_socket_colours_are_those_of_the_socket_types() -> None:
    types = set(re.findall(r'io\.Custom\("(\w+)"\)', (ROOT / "nodes" / "sockets.py").read_text(encoding="utf-8")))
    script = (ROOT / "web" / "adaattn.js").read_text(encoding="utf-8")
    colours = dict(re.findall(r'(ADAATTN_\w+): "(#[0-9a-f]{6})"', script))
    assert types and set(colours) == types
    assert len(set(colours.values())) == len(types), "two types of one colour"


def test_the_script_leaves_the_page_alone() -> None:
    """Its name starts with the pack's display name in the form that comfy-test asks for; no global variable, no style
    sheet, no timer."""
    for path in sorted((ROOT / "web").glob("**/*.js")):
        script = path.read_text(encoding="utf-8")
        for name in re.findall(r"registerExtension\(\{\s*name: \"([^\"]*)\"", script):
            assert name.startswith("adaattnstyletransfer."), name
        assert not re.search(r"\bwindow\.|globalThis|<style|createElement\(.style|setInterval", script), path


# ---------------------------------------------------------------- older hosts


def test_keywords_an_older_host_does_not_know_are_left_out() -> None:
    def old(size: int, tooltip: str = "") -> tuple[int, str]:
        return size, tooltip

    def new(size: int, tooltip: str = "", advanced: bool = False) -> tuple[int, str, bool]:
        return size, tooltip, advanced

    options: dict[str, Any] = {"tooltip": "words", "advanced": True, "search_aliases": ["a"]}
    assert compat.call_supported(old, 3, **options) == (3, "words")
    assert compat.call_supported(new, 3, **options) == (3, "words", True)


def test_a_misspelt_keyword_is_an_error_on_every_host() -> None:
    def make(size: int) -> int:
        return size

    with pytest.raises(TypeError, match="tooltipp"):
        compat.call_supported(make, 3, tooltipp="words")


OLDEST_KEYWORDS = {
    "display_name", "tooltip", "optional", "lazy", "default", "options", "min", "max", "step", "display_mode", "types",
    "label_on", "label_off", "control_after_generate", "force_input", "is_output_list",
}  # fmt: skip
"""What inputs and outputs may be given without `call_supported`. Source: comfy_api/latest/_io.py of ComfyUI 0.3.64."""


def test_no_keyword_is_newer_than_the_oldest_host() -> None:
    """One would drop the whole pack there. The stand-in for a host does not know those of `call_supported`."""
    given = {
        f"{node}.{socket.id}": set(socket.options) - OLDEST_KEYWORDS
        for node, schema in node_schemas().items()
        for socket in [*schema.inputs, *schema.outputs]
    }
    assert {socket: newer for socket, newer in given.items() if newer} == {}


def test_no_input_shares_an_id_with_an_output() -> None:
    """ComfyUI 0.3.64 refuses the node and with it the whole pack."""
    shared = {
        node: {socket.id for socket in schema.inputs} & {socket.id for socket in schema.outputs}
        for node, schema in node_schemas().items()
    }
    assert {node: ids for node, ids in shared.items() if ids} == {}


# ---------------------------------------------------------------- what can be chosen


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(small_model(), tmp_path / "mine.safetensors")
    return tmp_path


def finder(folder: Path) -> Callable[[str], Path | None]:
    return lambda name: folder / name if (folder / name).exists() else None


LISTED = [
    "mine.safetensors",
    "AdaAttN/latest_net_adaattn_3.pth",
    "AdaAttN/latest_net_decoder.pth",
    "AdaAttN/latest_net_transformer.pth",
    "AdaAttN/vgg_normalised.pth",
    "half/latest_net_decoder.pth",
    "vgg_normalised.pth",
]


def test_choices() -> None:
    assert files.model_choices([]) == ["base (built in)", "compact (built in)", "built-in"]
    assert files.model_choices(LISTED) == [
        "base (built in)",
        "compact (built in)",
        "built-in",
        "AdaAttN/",
        "mine.safetensors",
    ]
    assert files.encoder_choices([]) == ["VGG-19 (built in)", "compact (built in)", "built-in", "VGG-19 (torchvision)"]
    assert files.encoder_choices(LISTED)[4:] == ["mine.safetensors", "AdaAttN/vgg_normalised.pth", "vgg_normalised.pth"]


def test_published_files_beside_each_other_in_the_model_folder_itself() -> None:
    assert files.model_choices(["latest_net_decoder.pth", "latest_net_transformer.pth"]) == [
        "base (built in)", "compact (built in)", "built-in", "./"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("choice", "name"), [("compact (built in)", "compact"), ("built-in", "compact-0.1"), ("base (built in)", "base")]
)
def test_a_built_in_model_needs_no_file(choice: str, name: str, tmp_path: Path) -> None:
    wanted = load_model(name)
    assert fingerprint(files.read_model(choice, finder(tmp_path))) == fingerprint(wanted)
    if choice != "base (built in)":
        assert fingerprint(files.read_encoder(choice, finder(tmp_path))) == fingerprint(wanted.encoder)


def test_the_encoder_of_the_full_size_model_is_vgg19(tmp_path: Path) -> None:
    full_size = files.read_model("base (built in)", finder(tmp_path))
    vgg = files.read_encoder("VGG-19 (built in)", finder(tmp_path))
    assert fingerprint(full_size.encoder) == fingerprint(vgg), "features of this encoder fit its attention"


def test_the_built_in_vgg19_has_normalized_channels_and_needs_no_file(tmp_path: Path) -> None:
    network = files.read_encoder("VGG-19 (built in)", finder(tmp_path))
    assert fingerprint(network) == fingerprint(load_vgg(normalized=True)) != fingerprint(load_vgg())
    assert not network.training and not any(parameter.requires_grad for parameter in network.parameters())
    assert files.stamp("VGG-19 (built in)", finder(tmp_path)) == "VGG-19 (built in)"


def test_a_model_file_and_its_encoder(folder: Path) -> None:
    assert fingerprint(files.read_model("mine.safetensors", finder(folder))) == fingerprint(small_model())
    encoder = files.read_encoder("mine.safetensors", finder(folder))
    assert fingerprint(encoder) == fingerprint(small_model().encoder)
    assert not encoder.training and not any(parameter.requires_grad for parameter in encoder.parameters())


def test_a_published_folder_and_its_encoder(published: Path) -> None:
    """The encoder lies in the same folder, or beside it, as here."""
    vgg = published / "vgg_normalised.pth"
    model = files.read_model("AdaAttN/", finder(published))
    assert fingerprint(model) == fingerprint(convert_published(published / "AdaAttN", vgg))
    encoder = files.read_encoder("vgg_normalised.pth", finder(published))
    assert fingerprint(encoder) == fingerprint(load_vgg(vgg)) == fingerprint(model.encoder)


def test_a_published_folder_without_its_encoder(published: Path, tmp_path: Path) -> None:
    (tmp_path / "P").symlink_to(published / "AdaAttN")
    text = (
        rf"{tmp_path}/P holds no vgg_normalised\.pth; the published checkpoints need the encoder they were trained "
        r"with\. Put it into that folder\."
    )
    with pytest.raises(CheckpointError, match=f"^{text}$"):
        files.read_model("P/", finder(tmp_path))


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}], ids=["plain", "as others mark theirs"])
def test_a_vgg_in_safetensors(published: Path, tmp_path: Path, metadata: dict[str, str] | None) -> None:
    weights = torch.load(published / "vgg_normalised.pth", weights_only=True)
    save_file({name: value.contiguous() for name, value in weights.items()}, tmp_path / "vgg.safetensors", metadata)
    wanted = fingerprint(load_vgg(published / "vgg_normalised.pth"))
    assert fingerprint(files.read_encoder("vgg.safetensors", finder(tmp_path))) == wanted


def test_a_folder_of_that_name_without_checkpoints_is_another(published: Path, tmp_path: Path) -> None:
    (tmp_path / "AdaAttN").mkdir()
    assert files.is_there(published / "AdaAttN") and files.is_there(published / "vgg_normalised.pth")
    assert not files.is_there(tmp_path / "AdaAttN") and not files.is_there(tmp_path / "gone.safetensors")


@pytest.mark.parametrize("read", [files.read_model, files.read_encoder])
def test_a_file_that_is_gone(read: Callable[..., object], folder: Path) -> None:
    text = "mine.safetensors is not in models/adaattn any more. Press R and choose another, or put it back."
    (folder / "mine.safetensors").unlink()
    with pytest.raises(CheckpointError, match=f"^{re.escape(text)}$"):
        read("mine.safetensors", finder(folder))


@pytest.mark.parametrize("read", [files.read_model, files.read_encoder])
def test_a_file_that_is_cut_short(read: Callable[..., object], folder: Path) -> None:
    path = folder / "mine.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="is truncated or no safetensors file"):
        read("mine.safetensors", finder(folder))


def test_a_stamp_changes_with_the_file(folder: Path) -> None:
    find = finder(folder)
    assert files.stamp("built-in", find) == "built-in" and files.stamp(None, find) == ""
    before = files.stamp("mine.safetensors", find)
    assert before == files.stamp("mine.safetensors", find) != files.stamp("other.safetensors", find)
    save_model(small_model(1), folder / "mine.safetensors")
    assert files.stamp("mine.safetensors", find) != before
    (folder / "P").mkdir()
    (folder / "P" / "latest_net_decoder.pth").write_bytes(b"1")
    before = files.stamp("P/", find)
    (folder / "P" / "latest_net_decoder.pth").write_bytes(b"12")
    assert files.stamp("P/", find) != before


def test_the_stamp_of_a_published_folder_changes_with_an_encoder_beside_it(tmp_path: Path) -> None:
    """`read_model` takes it from there where the folder has none of its own."""
    (tmp_path / "P").mkdir()
    (tmp_path / "P" / "latest_net_decoder.pth").write_bytes(b"1")
    (tmp_path / "vgg_normalised.pth").write_bytes(b"1")
    before = files.stamp("P/", finder(tmp_path))
    (tmp_path / "vgg_normalised.pth").write_bytes(b"12")
    assert files.stamp("P/", finder(tmp_path)) != before


# ---------------------------------------------------------------- pictures and masks


def test_images_of_every_kind_become_pictures() -> None:
    image = CONTENT.movedim(1, -1)
    assert torch.equal(pictures.to_pictures(image, "content"), CONTENT)
    with_alpha = torch.cat([image, torch.zeros(1, 40, 60, 1)], dim=-1)
    assert torch.equal(pictures.to_pictures(with_alpha, "content"), CONTENT)
    assert pictures.to_pictures(image.half(), "content").dtype == torch.float32
    assert torch.equal(pictures.to_pictures(image[..., :1], "content"), CONTENT[:, :1].expand(1, 3, 40, 60))
    assert torch.equal(pictures.to_image(CONTENT), image)


@pytest.mark.parametrize(
    ("shape", "came"),
    [
        ((40, 60, 3), "1 picture of 60x40 pixels with 3 channels and no batch"),
        ((1, 40, 60, 2), "1 picture of 60x40 pixels with 2 channels"),
        ((0, 40, 60, 3), "0 pictures of 60x40 pixels with 3 channels"),
        ((1, 40, 0, 3), "1 picture of 0x40 pixels with 3 channels"),
    ],
)
def test_what_is_no_image(shape: tuple[int, ...], came: str) -> None:
    text = f"the style image is {came}; a batch of pictures with 3 channels is needed"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        pictures.to_pictures(torch.zeros(shape), "style")


def test_load_images_empty_mask_is_no_mask() -> None:
    """64 x 64 zeros; turned round it would be all white, which is no mask either."""
    empty = torch.zeros(1, 64, 64)
    assert pictures.fit_content_mask(None, CONTENT) is None
    assert pictures.fit_content_mask(empty, CONTENT) is None
    assert pictures.fit_content_mask(empty, CONTENT, invert=True) is None
    assert pictures.fit_style_mask(empty, CONTENT) is None
    assert torch.equal(pictures.to_mask(None, CONTENT), torch.ones(1, 40, 60))


@pytest.mark.parametrize("shape", [(40, 60), (1, 40, 60), (1, 64, 64), (7, 5)])
def test_masks_of_any_size_are_stretched(shape: tuple[int, ...]) -> None:
    area = pictures.fit_content_mask(torch.ones(shape), CONTENT)
    assert torch.equal(area, torch.ones(1, 1, 40, 60))
    assert torch.equal(pictures.to_mask(area, CONTENT), torch.ones(1, 40, 60))


def test_one_mask_for_each_picture() -> None:
    batch = picture(40, 60, batch=2)
    masks = torch.stack([torch.zeros(40, 60), torch.ones(40, 60)])
    assert torch.equal(pictures.fit_content_mask(masks, batch)[:, 0], masks)  # one empty one of several is no mistake
    with pytest.raises(ValueError, match="^3 masks for 2 pictures: give 1, or 2"):
        pictures.fit_content_mask(torch.ones(3, 40, 60), batch)


@pytest.mark.parametrize(
    ("mask", "options"),
    [
        (torch.zeros(40, 60), {}),
        (torch.ones(40, 60), {"invert": True}),
        (torch.full((40, 60), 0.3), {"threshold": 0.5}),
    ],
)
def test_an_empty_mask_paints_nothing_and_says_what_to_do(mask: torch.Tensor, options: dict[str, Any]) -> None:
    with pack_module("adaattn_core.runtime.remarks").collected_remarks() as notes:
        area = pictures.fit_content_mask(mask, CONTENT, **options)
    assert torch.equal(area, torch.zeros(1, 1, 40, 60)) and pictures.painted_strength(0.8, area) == 0
    assert [note.text for note in notes] == [
        "the content mask is empty: nothing is painted there. Paint some of it white, change invert or threshold, or "
        "disconnect it."
    ]


@pytest.mark.parametrize("content", ["torn", "pth", "foreign"])
def test_the_message_about_a_wrong_file_names_no_command(content: str, tmp_path: Path) -> None:
    """An artist with ComfyUI has not installed the command line."""
    path = tmp_path / "mine.safetensors"
    if content == "torn":
        path.write_bytes(b"not weights")
    elif content == "pth":
        torch.save({"a": torch.zeros(1)}, path)
    else:
        save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError) as caught:
        files.read_model("mine.safetensors", finder(tmp_path))
    assert not re.search(r"\badaattn [a-z]|--", str(caught.value)), str(caught.value)
