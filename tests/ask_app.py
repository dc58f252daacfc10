"""Run an example of a README: `python ask_app.py FILE [PATH…]` asks its `app` for each path and prints the bodies.

The program runs in the environment of the example, so it uses the standard library only.
"""

import asyncio
import runpy
import sys
from typing import Any


async def ask(app: Any, paths: list[str]) -> None:
    """Start the app, send each request, print the bodies, and stop the app."""
    to_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    from_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    lifespan = asyncio.create_task(app({"type": "lifespan", "asgi": {}, "state": {}}, to_app.get, from_app.put))
    await exchange("startup", to_app, from_app)
    for path in paths:
        print((await body_of(app, path)).decode())
    await exchange("shutdown", to_app, from_app)
    await lifespan


async def exchange(event: str, to_app: asyncio.Queue[dict[str, Any]], from_app: asyncio.Queue[dict[str, Any]]) -> None:
    """Send an event of the lifespan, and await its completion."""
    await to_app.put({"type": f"lifespan.{event}"})
    answer = await from_app.get()
    assert answer["type"] == f"lifespan.{event}.complete", answer


async def body_of(app: Any, path: str) -> bytes:
    """Return the body of the response to `GET path`."""
    parts: list[bytes] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        parts.append(message.get("body", b""))

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"localhost:8000"), (b"accept", b"*/*")],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
        "state": {},
    }
    await app(scope, receive, send)
    return b"".join(parts)


if __name__ == "__main__":
    names = runpy.run_path(sys.argv[1], run_name="example" if sys.argv[2:] else "__main__")
    if sys.argv[2:]:
        asyncio.run(ask(names["app"], sys.argv[2:]))
