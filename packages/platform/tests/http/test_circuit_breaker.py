"""The circuit breaker and the retry budget of a host, compared with models that remember every call."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, precondition, rule

from tequipy_platform.http import CircuitOpen
from tequipy_platform.http.circuit_breaker import CALLS, OPEN_SECONDS, PROBES, WINDOW, CircuitBreaker, Outcome
from tequipy_platform.http.retries import BUDGET_SHARE, BUDGET_WINDOW, FREE_RETRIES, RetryBudget

SECONDS = st.sampled_from([0.0, 0.001, 0.4, 0.999, 1.0, 3.0, 9.9, 10.0, 14.999, 15.0, 29.5, 31.0])


class BreakerMachine(RuleBasedStateMachine):
    """Calls begin and end in any order while time passes; the model keeps the whole history of the current state."""

    calls = Bundle("calls")

    def __init__(self) -> None:
        super().__init__()
        self.breaker = CircuitBreaker("api.example.com")
        self.now = 1000.25
        self.state = 0  # counts the changes of the state; a call belongs to the one in which it began
        self.opened_at: float | None = None
        self.ended: list[tuple[float, bool]] = []
        self.probes: dict[int, Outcome | None] = {}
        self.numbers = 0

    @rule(seconds=SECONDS)
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(target=calls)
    def begin(self) -> object:
        refused = self.opened_at is not None and (
            self.now < self.opened_at + OPEN_SECONDS
            or sum(outcome is not Outcome.UNKNOWN for outcome in self.probes.values()) >= PROBES
        )
        try:
            ticket = self.breaker.admit(self.now)
        except CircuitOpen:
            assert refused
            return multiple()
        assert not refused
        self.numbers += 1
        if self.opened_at is not None:
            self.probes[self.numbers] = None
        return ticket, self.state, self.numbers

    @rule(call=consumes(calls), outcome=st.sampled_from(Outcome))
    def end(self, call: tuple[int, int, int], outcome: Outcome) -> None:
        ticket, state, number = call
        self.breaker.record(ticket, outcome, self.now)
        if state != self.state:
            return  # it began before the breaker opened or closed
        if self.opened_at is not None:
            self.probes[number] = outcome
            if outcome is Outcome.FAILED:
                self._change(self.now)
            elif sum(each is Outcome.SUCCEEDED for each in self.probes.values()) == PROBES:
                self._change(None)
        elif outcome is not Outcome.UNKNOWN:
            self.ended.append((self.now, outcome is Outcome.SUCCEEDED))
            judged = [succeeded for at, succeeded in self.ended if int(at) > self.now - WINDOW]
            failed = judged.count(False)
            if outcome is Outcome.FAILED and len(judged) >= CALLS and failed * 2 >= len(judged):
                self._change(self.now)

    @rule(succeeded=st.integers(0, 20), failed=st.integers(0, 20))
    def many(self, succeeded: int, failed: int) -> None:
        """A burst of calls, which random single steps would hardly reach."""
        for outcome in [Outcome.SUCCEEDED] * succeeded + [Outcome.FAILED] * failed:
            call = self.begin()
            if isinstance(call, tuple):
                self.end(call, outcome)

    @precondition(lambda self: self.opened_at is not None)
    @rule()
    def recover(self) -> None:
        """However it got here, the breaker closes once three calls have succeeded."""
        self.now += OPEN_SECONDS
        for number in [number for number, outcome in self.probes.items() if outcome is None]:
            self.end((self.breaker._ticket, self.state, number), Outcome.UNKNOWN)
        for _ in range(PROBES):
            call = self.begin()
            if self.opened_at is not None:
                assert isinstance(call, tuple)
                self.end(call, Outcome.SUCCEEDED)
        assert not self.breaker.is_open

    @invariant()
    def agrees(self) -> None:
        assert self.breaker.is_open is (self.opened_at is not None)

    def _change(self, opened_at: float | None) -> None:
        self.opened_at = opened_at
        self.state += 1
        self.ended.clear()
        self.probes.clear()


class BudgetMachine(RuleBasedStateMachine):
    """Requests and retries while time passes; the model keeps the time of each."""

    def __init__(self) -> None:
        super().__init__()
        self.budget = RetryBudget()
        self.now = 1000.25
        self.requests: list[float] = []
        self.retries: list[float] = []

    @rule(seconds=SECONDS)
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(count=st.integers(1, 200))
    def request(self, count: int) -> None:
        for _ in range(count):
            self.budget.count_request(self.now)
            self.requests.append(self.now)

    @rule(count=st.integers(1, 15))
    def retry(self, count: int) -> None:
        for _ in range(count):
            retries = sum(at > self.now - BUDGET_WINDOW for at in self.retries) + 1
            requests = sum(at > self.now - BUDGET_WINDOW for at in self.requests) + 1
            allowed = self.budget.take(self.now)
            if retries <= FREE_RETRIES:
                assert allowed, "10 in any 10 s are always allowed"
            elif allowed:
                assert retries <= BUDGET_SHARE * requests, "at most 10 % of the requests are retries"
            if allowed:
                self.retries.append(self.now)
                self.budget.count_request(self.now)
                self.requests.append(self.now)


TestBreaker = BreakerMachine.TestCase
TestBudget = BudgetMachine.TestCase


def test_a_busy_host_may_retry_a_tenth_of_its_requests() -> None:
    """With 1,000 requests in a second, about a hundred retries are allowed, and no more."""
    budget = RetryBudget()
    for _ in range(1000):
        budget.count_request(5.0)
    allowed = sum(budget.take(5.5) for _ in range(1000))
    assert allowed == pytest.approx(100, abs=1)


def test_the_breaker_opens_at_half_of_twenty_calls() -> None:
    """19 failed calls leave it closed, the twentieth opens it, and it refuses for 15 s."""
    breaker = CircuitBreaker("api.example.com")
    for _ in range(CALLS - 1):
        breaker.record(breaker.admit(0.0), Outcome.FAILED, 0.0)
        assert not breaker.is_open
    breaker.record(breaker.admit(0.0), Outcome.FAILED, 0.0)
    with pytest.raises(CircuitOpen) as refused:
        breaker.admit(14.9)
    assert refused.value.retry_after == pytest.approx(0.1)
    breaker.admit(15.0)
