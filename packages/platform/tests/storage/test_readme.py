"""The README's example of stored objects runs."""

import re
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI, Request, Response

from tequipy_platform import ObjectNotFound
from tequipy_platform.testing import FrozenClock, MemoryStorage

REPORT = UUID(int=1)


def example() -> dict[str, Any]:
    """Return the names that the README's example defines."""
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (code,) = [each for each in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "store_report" in each]
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 -- the README is ours
    return names


async def lines() -> AsyncIterator[bytes]:
    yield b"a,b\n"
    yield b"1,2\n"


@pytest.mark.parametrize("server", [None, "https://s3.example.com"])
async def test_the_example_of_the_readme(server: str | None) -> None:
    """A report that two attempts store is downloaded under its name, from the app or from the storage's server."""
    storage, names, app = MemoryStorage(FrozenClock(), server=server), example(), FastAPI()

    @app.get("/report")
    async def report(request: Request) -> Response:
        return await names["download_report"](request, storage, REPORT, "März.csv")  # type: ignore[no-any-return] # -- any name of the example

    with pytest.raises(ObjectNotFound):
        await names["download_report"](Request({"type": "http", "headers": []}), storage, REPORT, "März.csv")
    for _ in range(2):
        assert await names["store_report"](storage, REPORT, lines()) == sha256(b"a,b\n1,2\n").hexdigest()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        response = await client.get("/report")
    if server is None:
        assert (response.status_code, response.content) == (200, b"a,b\n1,2\n")
        assert response.headers["content-disposition"].endswith("filename*=UTF-8''M%C3%A4rz.csv")
    else:
        assert response.status_code == 303
        assert response.headers["location"].startswith(f"{server}/reports/{REPORT}?response-content-disposition=")
