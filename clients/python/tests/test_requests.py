"""What is sent again after 429 and 503, and how refusals become exceptions; against a model of the API."""

import asyncio

import httpx
import pytest

from tequipy_client import Backoff, FieldError, ProblemError, RateLimited, Session, Unavailable
from tequipy_client.contract.api import accounts_and_sessions as accounts
from tequipy_client.contract.models import RegisterBody

from .api import PASSWORD, Api, problem

LIMITED = 429
UNAVAILABLE = 503


def refusal(status: int, seconds: int | None = 1) -> httpx.Response:
    """Return a refusal for this many seconds."""
    code = "rate_limited" if status == LIMITED else "unavailable"
    return problem(status, code, headers={} if seconds is None else {"Retry-After": str(seconds)})


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the seconds that the client has waited; it does not wait."""
    waits: list[float] = []
    sleep = asyncio.sleep

    async def record(seconds: float) -> None:
        if seconds:
            waits.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", record)
    return waits


@pytest.mark.parametrize("status", [LIMITED, UNAVAILABLE])
async def test_a_refused_read_is_sent_again(api: Api, session: Session, waits: list[float], status: int) -> None:
    """After the seconds of `Retry-After`, and a little more at random, the request is sent again."""
    api.answers["me"] = [refusal(status, 2), refusal(status, 1)]
    assert (await accounts.get_me(session.http)).email == "ada@example.com"
    assert [2 <= waits[0] <= 2.5, 1 <= waits[1] <= 1.25, len(waits)] == [True, True, 2]


async def test_a_limited_write_is_sent_again(api: Api, session: Session, waits: list[float]) -> None:
    """A request that was refused by a rate limit had no effect, so that POST is repeated too."""
    api.answers["register"] = [refusal(LIMITED), httpx.Response(202, json={"status": "accepted"})]
    await accounts.register(session.http, body=RegisterBody(email="bob@example.com", password=PASSWORD))
    assert len(waits) == 1


async def test_a_write_is_not_sent_again_after_503(api: Api, session: Session, waits: list[float]) -> None:
    """A POST without `Idempotency-Key` may have had its effect."""
    api.answers["register"] = [refusal(UNAVAILABLE)]
    with pytest.raises(Unavailable):
        await accounts.register(session.http, body=RegisterBody(email="bob@example.com", password=PASSWORD))
    assert waits == []


async def test_a_refresh_is_sent_again_after_503(api: Api, session: Session, waits: list[float]) -> None:
    """The API gives the same successor again, so that a refresh may be repeated."""
    api.answers["refresh"] = [refusal(UNAVAILABLE)]
    await session.refresh()
    assert len(waits) == 1


async def test_an_unavailable_refresh_keeps_the_session(api: Api, session: Session, waits: list[float]) -> None:
    """When the refresh is unavailable for longer, the requests fail, and the next one tries again."""
    api.expired = True
    api.answers["refresh"] = [refusal(UNAVAILABLE, None)]
    found = await asyncio.gather(*(accounts.get_me(session.http) for _ in range(5)), return_exceptions=True)
    assert [type(error) for error in found] == [Unavailable] * 5
    assert (await accounts.get_me(session.http)).email == "ada@example.com"
    assert waits == []


async def test_the_bound_holds_for_all_waits_together(
    api: Api, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is added to a wait at random does not make the waits longer than the bound."""
    monkeypatch.setattr("random.uniform", lambda _low, high: high)
    api.answers["me"] = [refusal(LIMITED, 8), refusal(LIMITED, 1)]
    async with Session("https://api.example.com", backoff=Backoff(max_wait=9), transport=api.transport) as session:
        with pytest.raises(RateLimited):
            await accounts.get_me(session.http)
    assert waits == [9]


@pytest.mark.parametrize(
    ("seconds", "sent"),
    [
        pytest.param(30, 1, id="longer than the bound"),
        pytest.param(6, 2, id="longer together"),
        pytest.param(1, 3, id="too often"),
        pytest.param(None, 1, id="for an unknown time"),
    ],
)
async def test_waiting_is_bounded(api: Api, waits: list[float], seconds: int | None, sent: int) -> None:
    """A refusal that lasts longer than the bound goes to the caller, with the seconds."""
    api.answers["me"] = [refusal(LIMITED, seconds) for _ in range(5)]
    backoff = Backoff(attempts=3, max_wait=10)
    async with Session("https://api.example.com", backoff=backoff, transport=api.transport) as session:
        with pytest.raises(RateLimited) as raised:
            await accounts.get_me(session.http)
    assert (api.calls["me"], len(waits)) == (sent, sent - 1)
    assert raised.value.problem.retry_after == seconds


async def test_a_problem_has_all_its_members(api: Api, session: Session) -> None:
    """Code, correlation id, wrong fields and reasons of a problem document are attributes."""
    errors = [{"pointer": "/email", "code": "value_error", "detail": "is no address"}]
    api.answers["register"] = [problem(422, "validation_failed", errors=errors, reasons=["common"])]
    with pytest.raises(ProblemError) as raised:
        await accounts.register(session.http, body=RegisterBody(email="x", password=PASSWORD))
    found = raised.value.problem
    assert (raised.value.status, raised.value.code) == (422, "validation_failed")
    assert found.errors == (FieldError("/email", "value_error", "is no address"),)
    assert (found.reasons, found.correlation_id) == (("common",), "c-1")
    assert str(raised.value) == "422 validation_failed: This is validation_failed. (correlation id c-1)"


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(502, text="<html>Bad gateway</html>", headers={"Content-Type": "text/html"}),
        httpx.Response(502, text="{", headers={"Content-Type": "application/problem+json"}),
        httpx.Response(502, text="[]", headers={"Content-Type": "application/problem+json"}),
        httpx.Response(502, content=b'{"code": "\xff"}', headers={"Content-Type": "application/problem+json"}),
        problem(502, "failed", type="about:blank", errors={"email": ["is no address"]}, reasons=None),
        httpx.Response(299),
    ],
    ids=["a page", "no JSON", "no object", "no UTF-8", "of another API", "another success"],
)
async def test_another_answer_is_an_error_too(api: Api, session: Session, answer: httpx.Response) -> None:
    """An answer of a proxy, or a status that is not in the contract, raises the same exception."""
    api.answers["me"] = [answer]
    with pytest.raises(ProblemError, match="unexpected_response") as raised:
        await accounts.get_me(session.http)
    assert raised.value.status == answer.status_code
