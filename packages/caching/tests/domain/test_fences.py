"""Fences tell who may still keep a value."""

from tequipy_caching.domain.fences import Fences


def test_a_breach_reaches_all_who_hold_a_fence_of_the_key() -> None:
    """Who held one before may keep nothing; other keys and later holders are free."""
    fences = Fences()
    with fences.hold(["a"]) as one, fences.hold(["a", "b"]) as two:
        fences.breach("a")
        with fences.hold(["a"]) as later:
            whole = one["a"].whole, two["a"].whole, two["b"].whole, later["a"].whole
    assert whole == (False, False, True, True)


def test_a_breach_of_all_leaves_nobody_out() -> None:
    """Every fence of every key is breached."""
    fences = Fences()
    with fences.hold(["a", "b"]) as held:
        fences.breach_all()
        assert not any(fence.whole or fence.stands for fence in held.values())


def test_a_breach_may_let_an_old_value_stand_in() -> None:
    """Only while all breaches say so."""
    fences = Fences()
    with fences.hold(["a"]) as held:
        fences.breach("a", stands=True)
        assert (held["a"].whole, held["a"].stands) == (False, True)
        fences.breach("a")
        fences.breach("a", stands=True)
        assert not held["a"].stands


def test_nothing_of_a_fence_remains() -> None:
    """Once the last one has left, breached or not, its key is forgotten."""
    fences = Fences()
    with fences.hold(["a"]), fences.hold(["a"]):
        fences.breach("a")
    assert not fences._open
