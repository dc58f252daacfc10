"""The list of what compiled code serves."""

from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from tequipy_platform.web import CompiledRoutes


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list of the paths that compiled code serves during the test."""
    paths = list[str]()
    serve = CompiledRoutes._serve

    async def note(self: CompiledRoutes, route: Any, scope: Scope, receive: Receive, send: Send) -> None:
        paths.append(scope["path"])
        await serve(self, route, scope, receive, send)

    monkeypatch.setattr(CompiledRoutes, "_serve", note)
    return paths
