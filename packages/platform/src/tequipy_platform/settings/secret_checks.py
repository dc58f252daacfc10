"""Checks of secrets that must be random: built-in secrets, and secrets that were typed instead of generated."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Final, Protocol, runtime_checkable

from pydantic import SecretStr

BUILT_IN: Final = "local-only-"
"""The prefix of the built-in secrets, which are public because they are in the repository."""

GUESSABLE_RULE: Final = "should be random, not typed"
BUILT_IN_RULE: Final = f"{GUESSABLE_RULE}; staging refuses the built-in one too"
"""What production requires of a secret that must be random: one without, and one with a built-in default."""

_ADVICE: Final = "make one of your own (openssl rand -base64 32)"
_MIN_VARIETY: Final = 6
"""The least number of different characters, and of different distances between neighbours. Of random texts with 32
characters, one in ten million has fewer if it consists of digits, and practically none in hexadecimal or base64."""


@runtime_checkable
class HoldsSecrets(Protocol):
    """A settings section with secrets that must be random."""

    def random_secrets(self) -> Mapping[str, Iterable[SecretStr]]:
        """Return the secrets of each field."""


def builtin_secret_faults(section: object) -> Iterator[tuple[str, str]]:
    """Yield each field of a section that holds a built-in secret, with advice."""
    for field, secrets in _secrets(section):
        if any(secret.startswith(BUILT_IN) for secret in secrets):
            yield field, f"is the built-in secret: {_ADVICE}"


def guessable_secret_faults(section: object) -> Iterator[tuple[str, str]]:
    """Yield each field of a section that holds a guessable secret, with advice."""
    for field, secrets in _secrets(section):
        if any(is_guessable(secret) for secret in secrets):
            yield field, f"is easily guessed: {_ADVICE}"


def is_guessable(secret: str) -> bool:
    """Return whether a text was evidently not generated at random.

    Such a text has few different characters (`aaaa…`), few different distances between neighbours (`abcd…`), or
    repeats a part (`changeme-changeme-…`).
    """
    fewest = min(_MIN_VARIETY, len(secret) // 4)
    steps = {ord(second) - ord(first) for first, second in pairwise(secret)}
    repeats = any(secret.startswith(secret[period:]) for period in range(1, len(secret) // 2 + 1))
    return repeats or len(set(secret)) < fewest or len(steps) < fewest


def _secrets(section: object) -> Iterator[tuple[str, list[str]]]:
    if isinstance(section, HoldsSecrets):
        for field, secrets in section.random_secrets().items():
            yield field, [secret.get_secret_value() for secret in secrets]
