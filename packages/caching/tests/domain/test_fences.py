"""Fences tell who may still keep a value."""

from contextlib import ExitStack

from hypothesis import given
from hypothesis import strategies as st

from tequipy_caching.domain.fences import LONGEST_JOURNAL, Fence, Fences

KEYS = "ab"
STEPS = st.lists(
    st.just(("hold",))
    | st.tuples(st.just("let go"), st.integers(0, 5))
    | st.tuples(st.just("breach"), st.sampled_from(KEYS), st.booleans())
    | st.just(("breach all",))
)


def test_a_breach_reaches_all_who_hold_a_fence() -> None:
    """Who held one before may not keep that key; other keys and later holders are free."""
    fences = Fences()
    with fences.hold() as one, fences.hold() as two:
        fences.breach("a")
        with fences.hold() as later:
            whole = one.whole("a"), two.whole("a"), two.whole("b"), later.whole("a")
    assert whole == (False, False, True, True)


def test_a_breach_of_all_leaves_nobody_out() -> None:
    """Every fence is breached at every key."""
    fences = Fences()
    with fences.hold() as held:
        fences.breach("a", stands=True)
        fences.breach_all()
        assert not any(held.whole(key) or held.stands(key) for key in KEYS)
        with fences.hold() as later:
            assert later.whole("a")


def test_a_breach_may_let_an_old_value_stand_in() -> None:
    """Only while all breaches say so."""
    fences = Fences()
    with fences.hold() as held:
        fences.breach("a", stands=True)
        assert (held.whole("a"), held.stands("a")) == (False, True)
        fences.breach("a")
        fences.breach("a", stands=True)
        assert not held.stands("a")


def test_who_has_let_go_keeps_nothing() -> None:
    """A fence that is not held any more is whole nowhere: it does not know what has happened since."""
    with Fences().hold() as held:
        assert held.whole("a")
    assert (held.whole("a"), held.stands("a")) == (False, False)


def test_a_journal_has_an_end() -> None:
    """A load that outlasts very many invalidations costs no more memory: in the end it may keep nothing at all."""
    fences = Fences()
    with fences.hold() as held:
        for number in range(2 * LONGEST_JOURNAL):
            fences.breach(number)
        assert len(fences._breaches) <= LONGEST_JOURNAL
        assert not held.whole(0)
        assert not held.whole("another")
        with fences.hold() as later:
            assert later.whole(0)


@given(STEPS)
def test_every_history_is_remembered_as_long_as_it_matters(steps: list[tuple[object, ...]]) -> None:
    """However holds and breaches overlap, each fence knows its own; what nobody can ask for is forgotten."""
    fences = Fences()
    held: dict[Fence, tuple[ExitStack, set[object], set[object]]] = {}
    for step in steps:
        match step:
            case ["hold"]:
                stack = ExitStack()
                held[stack.enter_context(fences.hold())] = (stack, set(), set())
            case ["let go", int(number)] if number < len(held):
                held.pop(list(held)[number])[0].close()
            case ["breach", str(key), bool(stands)]:
                fences.breach(key, stands=stands)
                for _, broken, fallen in held.values():
                    broken.add(key)
                    fallen.update(set() if stands else {key})
            case ["breach all"]:
                fences.breach_all()
                for _, broken, fallen in held.values():
                    broken.update(KEYS)
                    fallen.update(KEYS)
        for fence, (_, broken, fallen) in held.items():
            assert {key for key in KEYS if not fence.whole(key)} == broken
            assert {key for key in KEYS if not fence.stands(key)} == fallen
        assert set(fences._breaches) <= set().union(*(broken for _, broken, _ in held.values()))
    for stack, *_ in held.values():
        stack.close()
    assert not fences._breaches
