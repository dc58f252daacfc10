"""A program whose lookup of a host hangs for a minute: it prints how its call ended, and ends."""

import asyncio
import socket
import time

import httpx

from tequipy_platform.http import HttpSettings, build_http_clients


def hang(*_: object, **__: object) -> None:
    time.sleep(60)


async def main() -> None:
    socket.getaddrinfo = hang  # type: ignore[assignment]
    async with build_http_clients(HttpSettings(), app_name="shop", app_version="1") as http:
        try:
            await http.default.get("http://api.example.com/", extensions={"total": 0.2})
        except httpx.HTTPError as error:
            print(type(error).__name__)


asyncio.run(main())
