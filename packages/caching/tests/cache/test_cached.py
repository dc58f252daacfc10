"""The decorator `cached`."""

from enum import StrEnum

import pytest

from tequipy_caching import Cache, CachePolicy
from tequipy_caching.cache.keys import encode_key
from tequipy_caching.testing import MemoryCacheManager


@pytest.fixture
def words() -> Cache[str]:
    return MemoryCacheManager({"words": CachePolicy(ttl=60)}).cache("words", str)


async def test_one_call_for_each_set_of_arguments(words: Cache[str]) -> None:
    """The function is called once for equal arguments, however they are passed."""
    calls: list[tuple[str, str]] = []

    @words.cached("{first}:{second}")
    async def join(first: str, second: str = "z") -> str:
        """Joins two words."""
        calls.append((first, second))
        return first + second

    assert await join("x", "z") == await join("x") == await join(second="z", first="x") == "xz"
    assert calls == [("x", "z")]
    assert join.__doc__ == "Joins two words."
    assert await words.get(join.key("x")) == "xz"


async def test_arguments_are_encoded_separately(words: Cache[str]) -> None:
    """Arguments are encoded separately, so that text in one is never mistaken for text of the template."""

    @words.cached("{a}:{b}")
    async def join(a: str, b: str) -> str:
        return f"{a} {b}"

    assert await join("x:y", "z") == "x:y z"
    assert await join("x", "y:z") == "x y:z"
    assert encode_key(join.key("x:y", "z")) != encode_key(join.key("x", "y:z"))


async def test_arguments_are_checked_at_every_hit(words: Cache[str]) -> None:
    """A hit accepts a subclass of an argument's type, and refuses an equal value of another type."""

    class Word(StrEnum):
        ADA = "ada"

    @words.cached("{word}:{number}")
    async def repeat(word: str, number: int) -> str:
        return word * number

    assert await repeat("ada", 1) == await repeat(Word.ADA, 1) == "ada"
    with pytest.raises(TypeError, match="not bool"):
        await repeat("ada", True)


async def test_templates_separate_functions(words: Cache[str]) -> None:
    """Two functions with different templates on one cache have separate results."""

    @words.cached("upper:{word}")
    async def upper(word: str) -> str:
        return word.upper()

    @words.cached("title:{word}")
    async def title(word: str) -> str:
        return word.title()

    assert (await upper("ada"), await title("ada")) == ("ADA", "Ada")


async def test_invalidate_and_refresh(words: Cache[str]) -> None:
    """After `invalidate` the next call runs the function; `refresh` runs it at once."""
    count = 0

    @words.cached("count")
    async def number() -> str:
        nonlocal count
        count += 1
        return str(count)

    assert [await number(), await number()] == ["1", "1"]
    await number.invalidate()
    assert await number() == "2"
    assert await number.refresh() == "3"
    assert await number() == "3"


async def test_a_bound_method_is_cached_without_its_self(words: Cache[str]) -> None:
    """A service can decorate its own bound method in its constructor."""

    class Greeter:
        def __init__(self, cache: Cache[str]) -> None:
            self.greet = cache.cached("greet:{name}")(self._greet)

        async def _greet(self, name: str) -> str:
            return f"Hello {name}"

    greeter = Greeter(words)
    assert await greeter.greet("Ada") == "Hello Ada"
    assert greeter.greet.key("Ada") == ("greet:{name}", "Ada")


def test_an_unknown_name_in_a_template_is_refused(words: Cache[str]) -> None:
    """An unknown name in a template raises at the decoration."""

    async def load(user_id: int) -> str:
        return str(user_id)

    with pytest.raises(ValueError, match="names user: no parameter"):
        words.cached("user:{user}")(load)
