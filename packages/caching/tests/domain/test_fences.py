"""Fences tell who may still keep a value."""

from tequipy_caching.domain.fences import Fences


def test_a_breach_reaches_all_who_hold_a_fence_of_the_name() -> None:
    """Who held one before may keep nothing; other names and later holders are free."""
    fences = Fences()
    with fences.open("a") as one, fences.open("a") as two, fences.open("b") as other:
        fences.breach("a")
        with fences.open("a") as later:
            assert (one.whole, two.whole, other.whole, later.whole) == (False, False, True, True)


def test_a_breach_of_all_leaves_nobody_out() -> None:
    """Every fence of every name is breached."""
    fences = Fences()
    with fences.open("a") as one, fences.open("b") as other:
        fences.breach_all()
        assert not one.whole
        assert not other.whole


def test_a_breached_fence_is_still_held() -> None:
    """A name is held until the last one has left, breached or not; then nothing of it remains."""
    fences = Fences()
    with fences.open("a"):
        fences.breach("a")
        assert fences.held("a")
    assert not fences.held("a")
