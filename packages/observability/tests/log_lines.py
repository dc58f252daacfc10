"""The type of the fixture `lines`."""

from collections.abc import Callable

Lines = Callable[[], list[dict[str, object]]]
