"""A fixture that records spans in memory."""

from collections.abc import Iterator

import pytest

from tequipy_observability.testing import SpanRecorder, recorded_spans


@pytest.fixture
def spans() -> Iterator[SpanRecorder]:
    with recorded_spans() as recorder:
        yield recorder
