"""`Auth` as a context manager of its resources."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from tequipy_auth.testing import build_fake_auth


async def test_resources_close_in_reverse_order() -> None:
    """Resources close in reverse order, also when a later one fails to open."""
    events: list[str] = []

    @asynccontextmanager
    async def resource(name: str, *, fails: bool = False) -> AsyncIterator[None]:
        events.append(f"open {name}")
        if fails:
            raise RuntimeError
        try:
            yield
        finally:
            events.append(f"close {name}")

    auth = build_fake_auth()
    async with replace(auth, resources=(resource("a"), resource("b"))):
        events.append("serve")
    assert events == ["open a", "open b", "serve", "close b", "close a"]
    events.clear()
    with pytest.raises(RuntimeError):
        async with replace(auth, resources=(resource("a"), resource("b", fails=True))):
            pass
    assert events == ["open a", "open b", "close a"]
