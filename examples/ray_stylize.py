"""Paints the pictures of WebDataset shards in one style, on this machine or on a Ray cluster.

    pip install "adaattn[scale]"
    python ray_stylize.py s3://bucket/photos/ --style painting.jpg -o s3://bucket/painted

Ray Data lists and reads the shards, gives samples to the painters, replaces machines that are lost and writes the
results as shards. A sample keeps its other members (captions, classes); its key gets the name of its shard in front,
since a shard of results holds samples of several. A picture that cannot be painted leaves a member KEY.error.txt with
the reason instead, and what was ignored while one was read is a member KEY.remarks.txt. The same command continues a
run that was stopped: OUTPUT-progress/ lists the samples that are finished.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from adaattn_core import ImageError, encode_style, load_image, load_model, save_image, stylize
from adaattn_core.io.formats import ALPHA_FORMATS, WRITE_FORMATS, is_picture_name
from adaattn_core.io.images import load_color_and_alpha
from adaattn_core.ops.opacity import over_white, resize_with_alpha, restore_hidden, visible_color
from adaattn_core.runtime.remarks import collected_remarks

try:
    import ray
    from pyarrow.fs import FileSelector, FileSystem
    from ray.data.block import Block, BlockAccessor
    from ray.data.checkpoint import CheckpointConfig, NumpyArrayBasedCheckpointFilter
except ImportError:
    raise SystemExit('ray_stylize.py needs Ray Data. Install it: pip install "adaattn[scale]"') from None

logger = logging.getLogger("ray_stylize")
Sample = dict[str, Any]
IDENTITY = "__id__"
"""Names a sample in all shards, as only its key and its shard together do. Ray writes no column of two underscores."""

TRANSFER_CPUS = 0.25
"""CPUs for reading or writing a shard, which mostly waits."""
FILTER_CPUS = 1
"""What Ray takes to skip the samples that are finished."""


def identify(sample: Sample) -> Sample:
    """A sample of a shard as bytes, with its identity and a key that differs from those of other shards."""
    shard, key = sample["__url__"], sample["__key__"]
    return {**sample, "__key__": f"{PurePosixPath(shard).stem}/{key}", IDENTITY: f"{shard}#{key}"}


class Unfinished(NumpyArrayBasedCheckpointFilter):
    """Ray's filter of samples that are finished, for blocks of pandas, as which Ray 2.60 reads shards."""

    def filter_rows_for_block(self, block: Block) -> Block:
        return super().filter_rows_for_block(BlockAccessor.for_block(block).to_arrow())


class Painter:
    """Paints samples one after another; Ray starts one for each CPU or GPU that it has for it.

    Args:
        style: the file of the style.
        options: the options of the command.
    """

    def __init__(self, style: bytes, options: argparse.Namespace) -> None:
        if options.threads:
            torch.set_num_threads(options.threads)
        self.size = options.size
        self.folder = tempfile.TemporaryDirectory(prefix="adaattn-")
        self.device = "cuda" if options.gpus else "cpu"
        self.model = load_model(options.model).to(self.device)
        file = Path(self.folder.name, f"style{Path(options.style).suffix}")
        file.write_bytes(style)
        self.style = encode_style(self.model, load_image(file).to(self.device))

    def __call__(self, sample: Sample) -> Sample:
        """The sample with its pictures painted."""
        painted: Sample = {}
        for name, value in sample.items():
            if isinstance(value, bytes) and is_picture_name(f"_.{name}"):
                painted.update(self.paint_member(sample["__key__"], name, value))
            elif isinstance(value, bytes | str):  # another is the gap of a sample without this member
                painted[name] = value
        return painted

    def paint_member(self, key: str, name: str, data: bytes) -> Iterator[tuple[str, object]]:
        """The members that take the place of a picture."""
        stem = name.rpartition(".")[0]
        base = f"{stem}." if stem else ""
        source = Path(self.folder.name, f"source.{name}")
        target = Path(self.folder.name, f"painted{self.suffix(name)}")
        source.write_bytes(data)
        with collected_remarks() as remarks:
            try:
                self.paint(source, target)
                yield f"{base}{target.suffix[1:]}", target.read_bytes()
            except (ImageError, ValueError) as error:
                reason = str(error).replace(str(source), name)
                logger.warning("%s: %s", key, reason)
                yield f"{base}error.txt", reason.encode()
        if remarks:
            yield f"{base}remarks.txt", "\n".join(f"{name}: {remark.text}" for remark in remarks).encode()

    def suffix(self, name: str) -> str:
        """The suffix of a result: that of the source where it can be written, otherwise that of PNG."""
        suffix = PurePosixPath(f"_.{name}").suffix.lower()
        return suffix if suffix in WRITE_FORMATS else ".png"

    def paint(self, source: Path, target: Path) -> None:
        """Paints a picture file; its opacity is kept where the format holds it."""
        color, alpha = load_color_and_alpha(source)
        if alpha is not None and WRITE_FORMATS[target.suffix] not in ALPHA_FORMATS:
            color, alpha = over_white(color, alpha), None
        if self.size:
            color, alpha = resize_with_alpha(color, alpha, self.size)
        result = stylize(self.model, visible_color(color, alpha).to(self.device), self.style).cpu()
        save_image(restore_hidden(result, color, alpha, 1.0), target, alpha=alpha)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", nargs="+", help="tar files, or folders of them: paths, s3://, gs:// or abfs://")
    parser.add_argument("--style", required=True, help="style picture")
    parser.add_argument("-o", "--output", required=True, help="folder for the painted shards")
    parser.add_argument("--model", default="compact", help="as for adaattn stylize (default: %(default)s)")
    parser.add_argument("--size", type=int, default=0, metavar="PX", help="short side of the results (default: keep)")
    parser.add_argument("--cpus", type=float, default=1, help="CPUs that Ray sets aside for a painter (default: 1)")
    parser.add_argument("--gpus", type=float, default=0, help="GPUs for a painter, .5 lets two share one (default: 0)")
    parser.add_argument("--threads", type=int, default=1, help="threads of a painter; 0 leaves them (default: 1)")
    parser.add_argument("--painters", type=int, metavar="N", help="most painters at a time (default: what Ray has)")
    parser.add_argument("--rows", type=int, default=1000, help="samples in a result's shard, at least (default: 1000)")
    return parser.parse_args()


def progress_folder(output: str, style: bytes, options: argparse.Namespace) -> str:
    """The folder that lists what is finished.

    Raises:
        SystemExit: the output holds results of another style, model or size.
    """
    settings = json.dumps([hashlib.sha256(style).hexdigest(), options.model, options.size])
    name = f"{hashlib.sha256(settings.encode()).hexdigest()[:12]}"
    folder = f"{output.rstrip('/')}-progress"
    folder = folder if "://" in folder else str(Path(folder).resolve())
    system, path = FileSystem.from_uri(folder)
    others = system.get_file_info(FileSelector(path, allow_not_found=True))
    if any(other.base_name != name for other in others):
        raise SystemExit(f"{output} holds results of another style, model or --size. Choose another --output.")
    return f"{folder}/{name}"


def check_cpus(painter: float) -> None:
    """Raises SystemExit if Ray has too few CPUs to paint, to transfer shards and to skip finished samples at a time."""
    present, needed = ray.cluster_resources().get("CPU", 0), painter + FILTER_CPUS + 2 * TRANSFER_CPUS
    if present < needed:
        raise SystemExit(f"Ray has {present:g} CPUs; {needed:g} are needed. Use a smaller --cpus, such as .5.")


def check_names(shards: list[str]) -> None:
    """Raises SystemExit if two shards have one name, so that keys of their samples would be the same."""
    for name, count in Counter(PurePosixPath(shard).name for shard in shards).items():
        if count > 1:
            raise SystemExit(f"{count} shards are called {name}. Paint each folder into an output of its own.")


def main() -> None:
    options = parse()
    load_image(options.style)  # an error in it is said at once
    style = Path(options.style).read_bytes()
    progress = progress_folder(options.output, style, options)
    ray.init()
    ray.data.DataContext.get_current().checkpoint_config = CheckpointConfig(
        IDENTITY, progress, delete_checkpoint_on_success=False, checkpoint_filter_cls=Unfinished
    )
    check_cpus(options.cpus)
    samples = ray.data.read_webdataset(
        options.shards, decoder=[identify], file_extensions=["tar"], num_cpus=TRANSFER_CPUS
    )
    check_names(samples.input_files())
    painted = samples.map(
        Painter,
        fn_constructor_args=(style, options),
        num_cpus=options.cpus,
        num_gpus=options.gpus,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=options.painters),
    )
    painted.write_webdataset(
        options.output, encoder=None, min_rows_per_file=options.rows, ray_remote_args={"num_cpus": TRANSFER_CPUS}
    )
    print(f"painted shards are in {options.output}")


if __name__ == "__main__":
    main()
