"""Fences tell who may still keep a value."""

from contextlib import ExitStack

from hypothesis import given
from hypothesis import strategies as st

from tequipy_caching.domain.invalidation_guard import MAX_JOURNAL_LENGTH, InvalidationGuard, InvalidationGuards

KEYS = "ab"
STEPS = st.lists(
    st.just(("hold",))
    | st.tuples(st.just("let go"), st.integers(0, 5))
    | st.tuples(st.just("breach"), st.sampled_from(KEYS), st.booleans())
    | st.just(("breach all",))
)


def test_a_breach_reaches_all_who_hold_a_fence() -> None:
    """Who held one before may not keep that key; other keys and later holders are free."""
    guards = InvalidationGuards()
    with guards.hold() as one, guards.hold() as two:
        guards.invalidate("a")
        with guards.hold() as later:
            is_current = one.is_current("a"), two.is_current("a"), two.is_current("b"), later.is_current("a")
    assert is_current == (False, False, True, True)


def test_a_breach_of_all_leaves_nobody_out() -> None:
    """Every fence is breached at every key."""
    guards = InvalidationGuards()
    with guards.hold() as held:
        guards.invalidate("a", may_serve_stale=True)
        guards.invalidate_all()
        assert not any(held.is_current(key) or held.may_serve_stale(key) for key in KEYS)
        with guards.hold() as later:
            assert later.is_current("a")


def test_a_breach_may_let_an_old_value_stand_in() -> None:
    """Only while all breaches say so."""
    guards = InvalidationGuards()
    with guards.hold() as held:
        guards.invalidate("a", may_serve_stale=True)
        assert (held.is_current("a"), held.may_serve_stale("a")) == (False, True)
        guards.invalidate("a")
        guards.invalidate("a", may_serve_stale=True)
        assert not held.may_serve_stale("a")


def test_who_has_let_go_keeps_nothing() -> None:
    """A fence that is not held any more is whole nowhere: it does not know what has happened since."""
    with InvalidationGuards().hold() as held:
        assert held.is_current("a")
    assert (held.is_current("a"), held.may_serve_stale("a")) == (False, False)


def test_a_journal_has_an_end() -> None:
    """A load that outlasts very many invalidations costs no more memory: in the end it may keep nothing at all."""
    guards = InvalidationGuards()
    with guards.hold() as held:
        for number in range(2 * MAX_JOURNAL_LENGTH):
            guards.invalidate(number)
        assert len(guards._invalidations) <= MAX_JOURNAL_LENGTH
        assert not held.is_current(0)
        assert not held.is_current("another")
        with guards.hold() as later:
            assert later.is_current(0)


@given(STEPS)
def test_every_history_is_remembered_as_long_as_it_matters(steps: list[tuple[object, ...]]) -> None:
    """However holds and breaches overlap, each fence knows its own; what nobody can ask for is forgotten."""
    guards = InvalidationGuards()
    held: dict[InvalidationGuard, tuple[ExitStack, set[object], set[object]]] = {}
    for step in steps:
        match step:
            case ["hold"]:
                stack = ExitStack()
                held[stack.enter_context(guards.hold())] = (stack, set(), set())
            case ["let go", int(number)] if number < len(held):
                held.pop(list(held)[number])[0].close()
            case ["breach", str(key), bool(may_serve_stale)]:
                guards.invalidate(key, may_serve_stale=may_serve_stale)
                for _, broken, fallen in held.values():
                    broken.add(key)
                    fallen.update(set() if may_serve_stale else {key})
            case ["breach all"]:
                guards.invalidate_all()
                for _, broken, fallen in held.values():
                    broken.update(KEYS)
                    fallen.update(KEYS)
        for guard, (_, broken, fallen) in held.items():
            assert {key for key in KEYS if not guard.is_current(key)} == broken
            assert {key for key in KEYS if not guard.may_serve_stale(key)} == fallen
        assert set(guards._invalidations) <= set().union(*(broken for _, broken, _ in held.values()))
    for stack, *_ in held.values():
        stack.close()
    assert not guards._invalidations
