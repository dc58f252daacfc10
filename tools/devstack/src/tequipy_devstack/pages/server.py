"""A small web server for pages of this machine's user."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import TracebackType
from typing import ClassVar, Self
from urllib.parse import SplitResult, unquote, urlsplit

from tequipy_devstack.processes import DevstackError

HOST = "127.0.0.1"
_NAMES = ("127.0.0.1", "localhost")


@dataclass(frozen=True)
class Request:
    """The parts of a request that pages depend on."""

    host: str
    """The name by which the page was asked for, without the port."""
    path: str
    """The path, percent-decoded."""
    query: str


@dataclass(frozen=True)
class Answer:
    """A response."""

    body: bytes
    content_type: str = "text/html; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict)


Respond = Callable[[Request], Answer | None]
"""Returns the response to a GET request, or None if there is no such page."""


class PageServer:
    """Serves pages on 127.0.0.1 in threads of its own, while the context manager is entered.

    A request for another host name gets 421: its page could have been sent here by a name server (DNS rebinding).
    """

    def __init__(self, port: int, respond: Respond) -> None:
        self.port = port
        self.respond = respond

    @property
    def url(self) -> str:
        """The address of the pages."""
        return f"http://{HOST}:{self.port}"

    def __enter__(self) -> Self:
        handler = type("Handler", (_Handler,), {"pages": self})
        try:
            self._server = ThreadingHTTPServer((HOST, self.port), handler)
        except OSError as error:
            raise DevstackError(f"port {self.port} is taken: {error.strerror}") from None
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self._thread = Thread(target=self._server.serve_forever, args=[0.1], daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD."""

    pages: ClassVar[PageServer]
    timeout = 10  # seconds that a connection may be silent
    server_version, sys_version = "tequipy-devstack", ""

    def do_GET(self) -> None:
        """Answer a request."""
        answer = self._answer()
        self.send_response(answer.status)
        fields = {
            "Content-Type": answer.content_type,
            "Content-Length": str(len(answer.body)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Opener-Policy": "same-origin",
            **answer.headers,
        }
        for name, value in fields.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_HEAD = do_GET  # noqa: N815 -- as above

    def log_message(self, *_: object) -> None:
        """Log nothing: the stack's output is that of its programs."""

    def _answer(self) -> Answer:
        try:
            host = urlsplit(f"//{self.headers.get('Host', '')}")
            url: SplitResult = urlsplit(self.path)
            known = host.hostname in _NAMES and host.port == self.pages.port
        except ValueError:
            return _error(HTTPStatus.BAD_REQUEST)
        if not known or host.hostname is None:
            return _error(HTTPStatus.MISDIRECTED_REQUEST)
        try:
            answer = self.pages.respond(Request(host.hostname, unquote(url.path), url.query))
        except (OSError, ValueError):  # no file can have this name, or none of this name can be read
            answer = None
        return answer or _error(HTTPStatus.NOT_FOUND)


def _error(status: HTTPStatus) -> Answer:
    return Answer(f"{status.value} {status.phrase}\n".encode(), "text/plain; charset=utf-8", status)
