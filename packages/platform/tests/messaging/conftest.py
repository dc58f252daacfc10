"""The fixture `twin`, for suites that the real outbox and its fake pass alike."""

import pytest

from .twins import MemoryTwin, SqlTwin, Twin


@pytest.fixture(params=["postgres", "memory"])
def twin(request: pytest.FixtureRequest) -> Twin:
    if request.param == "postgres":
        return SqlTwin(request.getfixturevalue("database"))
    return MemoryTwin()
