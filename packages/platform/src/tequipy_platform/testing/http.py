"""Upstreams in memory, so that packages test their outgoing calls without a network."""

from collections.abc import Callable
from fnmatch import fnmatchcase

from tequipy_observability import needs_extra

with needs_extra("tequipy-platform[http]"):
    import httpx

    from tequipy_platform.http import HttpClients, HttpSettings

__all__ = ["Answer", "MemoryUpstreams"]

Answer = httpx.Response | Callable[[httpx.Request], httpx.Response]
"""A response, or a function that returns or raises the answer to a request."""


class MemoryUpstreams:
    """Answers the calls of `clients` by routes; deadline, retries and circuit breaker are those of production.

    A route is `GET https://api.example.com/prices/*`, with the wildcards of `fnmatch` and without the query. A further
    route takes precedence over earlier ones. Waits between attempts take no time.
    """

    def __init__(self, settings: HttpSettings | None = None) -> None:
        self._routes: list[tuple[str, Answer]] = []
        self.requests: list[httpx.Request] = []
        self.clients = HttpClients(
            settings or HttpSettings(),
            user_agent="test/0",
            transports=lambda _: httpx.MockTransport(self._answer),
            jitter=lambda: 0.0,
        )

    def route(self, route: str, answer: Answer) -> None:
        """Answer the requests that match `route`."""
        self._routes.append((route, answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        line = f"{request.method} {request.url.copy_with(query=None)}"
        for route, answer in reversed(self._routes):
            if fnmatchcase(line, route):
                if isinstance(answer, httpx.Response):
                    # A new object, because a response is read once, and an attempt may be repeated.
                    return httpx.Response(answer.status_code, headers=answer.headers, content=_sent_bytes(answer))
                return answer(request)
        raise LookupError(f"no route for {line}")


def _sent_bytes(answer: httpx.Response) -> bytes:
    """Return the body as it is sent, compressed or not."""
    if not isinstance(answer.stream, httpx.ByteStream):
        raise TypeError("a response of a route has a content; use a function for one with a stream")
    return b"".join(answer.stream)
