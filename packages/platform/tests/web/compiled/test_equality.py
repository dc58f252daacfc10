"""Compiled routes answer as FastAPI does, byte for byte: generated routes and requests, several versions of FastAPI."""

import pytest

from .equality import Comparison


def test_compiled_routes_answer_as_fastapi_does() -> None:
    """Generated routes give the same messages, errors and calls of dependencies, compiled or not (the short form)."""
    comparison = Comparison()
    comparison.run(150)
    counts = comparison.counts
    assert counts["differences"] == 0
    assert counts["served"] > counts["requests"] / 10, str(comparison)  # others are not found, or are not simple


@pytest.mark.prove
@pytest.mark.timeout(900)
def test_compiled_routes_answer_as_fastapi_does_in_a_long_search() -> None:
    """Generated routes give the same messages, errors and calls of dependencies, compiled or not (the long form)."""
    comparison = Comparison()
    try:
        comparison.run(3000, derandomize=False)
    finally:
        print(comparison)
