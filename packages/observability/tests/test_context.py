"""The request context: validation of ids from outside, and the lifetime of bound fields."""

import asyncio

import pytest

from tequipy_observability import (
    RequestContext,
    accept_correlation_id,
    bind_context,
    current_context,
    request_context,
)
from tequipy_observability._context import accept_traceparent, replace_traceparent

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize("offered", ["a", "A-z_0.9", "x" * 128])
def test_a_well_formed_correlation_id_is_taken(offered: str) -> None:
    """An id that matches the pattern is kept."""
    assert accept_correlation_id(offered) == offered


@pytest.mark.parametrize("offered", [None, "", "x" * 129, "a b", "a\n", "ä", "a;b", "{}"])
def test_any_other_correlation_id_is_replaced(offered: str | None) -> None:
    """An id that does not match is replaced by a new one and never echoed."""
    made = accept_correlation_id(offered)
    assert made != offered
    assert len(made) == 32


@pytest.mark.parametrize("offered", [TRACE, "01" + TRACE[2:] + "-more"])
def test_a_valid_traceparent_is_taken(offered: str) -> None:
    """A valid traceparent is kept; future versions may have more fields."""
    assert accept_traceparent(offered) == offered


@pytest.mark.parametrize(
    "offered",
    [None, "", TRACE.upper(), "ff" + TRACE[2:], f"00-{'0' * 32}-b7ad6b7169203331-01", TRACE + "\n", "x" * 600],
)
def test_an_invalid_traceparent_is_dropped(offered: str | None) -> None:
    """A traceparent that is invalid by the W3C standard is dropped."""
    assert accept_traceparent(offered) is None


async def test_bound_fields_last_as_long_as_their_request() -> None:
    """A field bound within a request is visible in its tasks, and gone after the request."""
    seen = []

    async def child() -> None:
        seen.append(current_context().user_id)

    with request_context(RequestContext(correlation_id="abc")):
        bind_context(user_id="ada")
        await asyncio.create_task(child())
        assert current_context().correlation_id == "abc"
    assert seen == ["ada"]
    assert current_context() == RequestContext()


@pytest.mark.parametrize("name", RequestContext._fields)
def test_each_field_is_bound_alone(name: str) -> None:
    """Binding one field leaves all others as they are."""
    known = RequestContext(*(f"old {field}" for field in RequestContext._fields))
    with request_context(known):
        bind_context(**{name: "new"})
        assert current_context() == known._replace(**{name: "new"})
        bind_context(**{name: None})
        assert current_context() == known._replace(**{name: None})
        replace_traceparent("trace")
        assert current_context() == known._replace(**{name: None})._replace(traceparent="trace")


def test_an_unknown_field_is_refused() -> None:
    """A name that is no field raises `ValueError`, and the other names of the call bind nothing."""
    with pytest.raises(ValueError, match="no field 'user'"):
        bind_context(user_id="ada", user="ada")
    assert current_context() == RequestContext()
