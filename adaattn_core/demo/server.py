"""A server for the page on the loopback address: other machines cannot reach it."""

from __future__ import annotations

import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from ..io.files import error_reason
from .site import INDEX, Site, content

LOOPBACK = "127.0.0.1"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".wasm": "application/wasm",
    ".jpg": "image/jpeg",
    ".onnx": "application/octet-stream",
    "": "text/plain; charset=utf-8",
}
"""By suffix. Those of the system are not asked: Windows' registry can call a script a text."""
HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",  # with the line above, scripts may use several threads
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


class SiteServer(ThreadingHTTPServer):
    """Serves a site; `serve_forever` starts it.

    Args:
        site: result of `build_site`.
        port: 0 takes any free one.

    Raises:
        ValueError: the port is in use, or needs an administrator.
    """

    daemon_threads = True

    def __init__(self, site: Site, port: int = 0) -> None:
        self.site = site
        try:
            super().__init__((LOOPBACK, port), SiteHandler)
        except OSError as error:
            raise ValueError(
                f"port {port} cannot be used: {error_reason(error)}. Choose another, or 0 for any free one."
            ) from error

    def handle_error(self, request: object, client_address: object) -> None:
        """A tab that is closed while it loads is no error of the server; others are shown as Python shows them."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    @property
    def address(self) -> str:
        return f"http://{LOOPBACK}:{self.server_port}/"


class SiteHandler(BaseHTTPRequestHandler):
    """Answers GET and HEAD from the table of the site alone, so that no other file can be asked for."""

    server: SiteServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:  # noqa: N802 (http.server's name)
        self._answer(with_body=True)

    def do_HEAD(self) -> None:  # noqa: N802 (http.server's name)
        self._answer(with_body=False)

    def _answer(self, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path).removeprefix("/") or INDEX
        if path not in self.server.site:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        body = content(self.server.site[path])
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", TYPES[PurePosixPath(path).suffix])
        self.send_header("Content-Length", str(len(body)))
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: the page tells what went wrong."""
