"""The page of the built-in model, served on this machine, and a browser."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from adaattn_core.checkpoints.model_file import load_model
from adaattn_core.demo.server import SiteServer
from adaattn_core.demo.site import Site, build_site
from adaattn_core.demo.web_runtime import find_runtime
from adaattn_core.errors import DownloadError
from adaattn_core.models.model import StyleTransferModel

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.demo.desk import Desk


@pytest.fixture(scope="session")
def site() -> Site:
    pytest.importorskip("onnx", reason='needs onnx: pip install "adaattn[onnx]"')
    try:
        return build_site("compact", find_runtime(), is_local=True)
    except DownloadError as error:
        pytest.skip(f"needs ONNX Runtime for the web: {error}")


@pytest.fixture(scope="session")
def model() -> StyleTransferModel:
    return load_model("compact")


@contextmanager
def serving(server: SiteServer) -> Iterator[str]:
    """A server at work; its address."""
    with server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.address
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="session")
def address(site: Site) -> Iterator[str]:
    with serving(SiteServer(site)) as address:
        yield address


@pytest.fixture(scope="module")
def browser(site: Site) -> Iterator[Browser]:
    from tests.demo.desk import chromium

    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def tab(browser: Browser, address: str) -> Iterator[Desk]:
    """A tab for many tests: a painter takes seconds to start."""
    from tests.demo.desk import Desk

    context = browser.new_context()
    yield Desk(context.new_page()).open(address)
    context.close()


@pytest.fixture
def desk(tab: Desk) -> Iterator[Desk]:
    """The tab as at first, with small pictures; nothing in it may fail unseen."""
    tab.errors.clear()
    yield tab.start_anew()
    assert tab.errors == []
