"""The dependency that returns the caller of a route."""

import asyncio
from itertools import chain

import pytest
from fastapi import APIRouter
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.requests import HTTPConnection

from tequipy_auth import AmbiguousCredentials
from tequipy_auth.api import CurrentPrincipal, FreshPrincipal
from tequipy_auth.api.dependencies import BearerToken

HEADERS = st.lists(
    st.tuples(
        st.sampled_from([b"authorization", b"proxy-authorization", b"cookie"]),
        st.one_of(
            st.binary(max_size=20),
            st.builds(
                lambda scheme, space, token: scheme + space + token,
                st.sampled_from([b"Bearer", b"bearer", b"BEARER", b"Basic", b"Bearers", b""]),
                st.sampled_from([b" ", b"  ", b"\t", b"\xa0", b""]),
                st.binary(max_size=8),
            ),
        ),
    ),
    max_size=4,
)


def steps_of(endpoint: object) -> int:
    """Return how many dependencies FastAPI solves for each request of a route."""
    router = APIRouter()
    router.add_api_route("/", endpoint)  # type: ignore[arg-type]
    (route,) = router.routes
    assert isinstance(route, APIRoute)

    def nodes(dependant: Dependant) -> int:
        return sum(1 + nodes(each) for each in dependant.dependencies)

    return nodes(route.dependant)


def test_the_caller_is_one_step() -> None:
    """A route with the caller has one dependency, which has none itself."""

    async def show(principal: CurrentPrincipal) -> str:
        return str(principal.user_id)

    assert steps_of(show) == 1


def test_a_fresh_caller_is_three_steps() -> None:
    """A sensitive route adds the check of the session, and `Auth`."""

    async def show(principal: FreshPrincipal) -> str:
        return str(principal.user_id)

    assert steps_of(show) == 3


@given(HEADERS)
@example([(b"authorization", b"Bearer a b")])
@example([(b"authorization", b""), (b"authorization", b"Bearer a")])
def test_the_token_is_that_of_the_only_header(headers: list[tuple[bytes, bytes]]) -> None:
    """The token follows the scheme `Bearer` in any case and spaces; a second header is refused, whatever it holds."""
    (bearer,) = chain.from_iterable(
        [each.dependency]
        for each in BearerToken.__metadata__  # type: ignore[attr-defined]
    )
    request = HTTPConnection({"type": "http", "headers": headers})
    values = request.headers.getlist("authorization")
    if len(values) > 1:
        with pytest.raises(AmbiguousCredentials):
            asyncio.run(bearer(request))
        return
    words = "".join(values).split(" ", 1)
    token = words[1].strip(" ") if len(words) == 2 and words[0].lower() == "bearer" else ""
    assert asyncio.run(bearer(request)) == (token or None)
