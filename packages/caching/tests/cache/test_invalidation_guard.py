"""Invalidation guards: they decide whether a loaded value may be stored."""

from contextlib import ExitStack

from hypothesis import given
from hypothesis import strategies as st

from tequipy_caching.cache.invalidation_guard import MAX_JOURNAL_LENGTH, InvalidationGuard, InvalidationGuards

KEYS = "ab"
STEPS = st.lists(
    st.just(("hold",))
    | st.tuples(st.just("let go"), st.integers(0, 5))
    | st.tuples(st.just("invalidate"), st.sampled_from(KEYS), st.booleans())
    | st.just(("invalidate all",))
)


def test_an_invalidation_affects_all_held_guards() -> None:
    """An invalidation affects all guards that are held for that key, and neither other keys nor later guards."""
    guards = InvalidationGuards()
    with guards.hold() as one, guards.hold() as two:
        guards.invalidate("a")
        with guards.hold() as later:
            is_current = one.is_current("a"), two.is_current("a"), two.is_current("b"), later.is_current("a")
    assert is_current == (False, False, True, True)


def test_invalidate_all_affects_all_keys() -> None:
    """`invalidate_all` affects all guards and all keys."""
    guards = InvalidationGuards()
    with guards.hold() as held:
        guards.invalidate("a", may_serve_stale=True)
        guards.invalidate_all()
        assert not any(held.is_current(key) or held.may_serve_stale(key) for key in KEYS)
        with guards.hold() as later:
            assert later.is_current("a")


def test_all_invalidations_must_allow_stale_values() -> None:
    """A stale value may be served only if all invalidations allow it."""
    guards = InvalidationGuards()
    with guards.hold() as held:
        guards.invalidate("a", may_serve_stale=True)
        assert (held.is_current("a"), held.may_serve_stale("a")) == (False, True)
        guards.invalidate("a")
        guards.invalidate("a", may_serve_stale=True)
        assert not held.may_serve_stale("a")


def test_a_released_guard_allows_no_store() -> None:
    """A released guard allows no store, because it does not receive later invalidations."""
    with InvalidationGuards().hold() as held:
        assert held.is_current("a")
    assert (held.is_current("a"), held.may_serve_stale("a")) == (False, False)


def test_the_journal_is_bounded() -> None:
    """The journal is bounded: a load that outlasts very many invalidations may store nothing."""
    guards = InvalidationGuards()
    with guards.hold() as held:
        for number in range(2 * MAX_JOURNAL_LENGTH):
            guards.invalidate(number)
        assert len(guards._journal) <= MAX_JOURNAL_LENGTH
        assert not held.is_current(0)
        assert not held.is_current("another")
        with guards.hold() as later:
            assert later.is_current(0)


@given(STEPS)
def test_any_order_of_guards_and_invalidations_is_correct(steps: list[tuple[object, ...]]) -> None:
    """However guards and invalidations overlap, each guard is correct, and entries that no guard needs are removed."""
    guards = InvalidationGuards()
    held: dict[InvalidationGuard, tuple[ExitStack, set[object], set[object]]] = {}
    for step in steps:
        match step:
            case ["hold"]:
                stack = ExitStack()
                held[stack.enter_context(guards.hold())] = (stack, set(), set())
            case ["let go", int(number)] if number < len(held):
                held.pop(list(held)[number])[0].close()
            case ["invalidate", str(key), bool(may_serve_stale)]:
                guards.invalidate(key, may_serve_stale=may_serve_stale)
                for _, broken, fallen in held.values():
                    broken.add(key)
                    fallen.update(set() if may_serve_stale else {key})
            case ["invalidate all"]:
                guards.invalidate_all()
                for _, broken, fallen in held.values():
                    broken.update(KEYS)
                    fallen.update(KEYS)
        for guard, (_, broken, fallen) in held.items():
            assert {key for key in KEYS if not guard.is_current(key)} == broken
            assert {key for key in KEYS if not guard.may_serve_stale(key)} == fallen
        assert set(guards._journal) <= set().union(*(broken for _, broken, _ in held.values()))
    for stack, *_ in held.values():
        stack.close()
    assert not guards._journal
