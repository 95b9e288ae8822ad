"""Show a page in the browser on which anybody can paint; no picture leaves it."""

from __future__ import annotations

import argparse
import webbrowser
from pathlib import Path

from ..checkpoints.model_file import COMPACT
from ..demo.server import SiteServer
from ..demo.site import DESCRIPTION, build_site, content, write_site
from ..demo.web_runtime import find_runtime, get_runtime
from ..errors import OutputError
from ..export.onnx_file import onnx_package
from .shared.idle_options import Idle, remark_idle
from .shared.options import MODEL_HELP, integer
from .shared.paths import make_folder

EXAMPLES = """\
examples:
  adaattn demo --get-runtime            the first time: download ONNX Runtime for the web (33 MB), then show the page
  adaattn demo                          show it again, without a connection
  adaattn demo --write site             write the page as files for any web host
Needs the packages onnx and onnxruntime: pip install "adaattn[onnx]".
Ctrl-C ends the server, which only this machine can reach.
"""
LARGEST_PORT = 65535
IDLE = (Idle("--port --no-browser", lambda args: args.write is not None, "with --write, which shows no page"),)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument("model", nargs="?", default=COMPACT, metavar="MODEL", help=MODEL_HELP)
    parser.add_argument(
        "--get-runtime", action="store_true",
        help="download ONNX Runtime for the web from the npm registry where it is missing, and keep it in the cache "
        "folder of this user",
    )  # fmt: skip
    parser.add_argument("--port", type=port, default=0, metavar="N", help="of the server (default: any free one)")
    parser.add_argument("--no-browser", action="store_true", help="print the address without opening a browser")
    parser.add_argument(
        "--write", metavar="FOLDER",
        help="write the page and all that it loads into a folder, in place of showing it: a new or empty one, or one "
        "with an earlier page",
    )  # fmt: skip


def port(text: str) -> int:
    """The type of the value of --port."""
    value = integer(text)
    if not 0 <= value <= LARGEST_PORT:
        raise argparse.ArgumentTypeError(f"{text} is out of range; it must be between 0 and {LARGEST_PORT}")
    return value


def run(args: argparse.Namespace) -> int:
    onnx_package("onnx")
    remark_idle(IDLE, args)
    if args.write is None:
        return _show(args)
    folder = Path(args.write)
    _check_site_folder(folder)
    runtime = get_runtime() if args.get_runtime else find_runtime()
    site = build_site(args.model, runtime, is_local=False)
    make_folder(folder)
    write_site(site, folder)
    size = sum(len(content(entry)) for entry in site.values())
    print(f"{folder}  {len(site)} files  {size / 1e6:.1f} MB  for a web host: browsers open no such page from disk")
    return 0


def _check_site_folder(folder: Path) -> None:
    """Raises an OutputError if other files than those of an earlier page are in a folder."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / DESCRIPTION).is_file():
        raise OutputError(f"{folder} holds other files, and the page needs a folder of its own. Name a new folder.")


def _show(args: argparse.Namespace) -> int:
    runtime = get_runtime() if args.get_runtime else find_runtime()
    site = build_site(args.model, runtime, is_local=True)
    with SiteServer(site, args.port) as server:
        print(f"{server.address}  Ctrl-C ends it", flush=True)
        if not args.no_browser and not webbrowser.open(server.address):
            print("no browser could be opened; open the address in one", flush=True)
        server.serve_forever()
    return 0
