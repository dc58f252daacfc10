"""A client of the observed app."""

from collections.abc import AsyncIterator

import httpx
import pytest

from .observed_app import build_app


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(build_app()), base_url="http://test") as client:
        yield client
