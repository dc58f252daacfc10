"""What is wrong with a secret that was to be random: it stands in a repository, or was typed instead of drawn."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Final, Protocol, runtime_checkable

from pydantic import SecretStr

BUILT_IN: Final = "local-only-"
"""How the built-in secrets begin: they stand in a public repository, so they protect nothing."""

_MEND: Final = "make one of your own (openssl rand -base64 32)"
_FEWEST: Final = 6
"""Different characters, and different steps between neighbours. Of random text with 32 characters one in ten million
has fewer when it is of digits alone, and practically none in hexadecimal or base64."""


@runtime_checkable
class HoldsSecrets(Protocol):
    """A section of settings with secrets that are random text."""

    def random_secrets(self) -> Mapping[str, Iterable[SecretStr]]:
        """Return the secrets that each field holds."""


def builtin_secret_faults(section: object) -> Iterator[tuple[str, str]]:
    """Return each field of a section that still holds a built-in secret, and what to do about it."""
    for field, secrets in _secrets(section):
        if any(secret.startswith(BUILT_IN) for secret in secrets):
            yield field, f"is the built-in secret: {_MEND}"


def guessable_secret_faults(section: object) -> Iterator[tuple[str, str]]:
    """Return each field of a section that holds a secret without randomness, and what to do about it."""
    for field, secrets in _secrets(section):
        if any(is_guessable(secret) for secret in secrets):
            yield field, f"is easily guessed: {_MEND}"


def is_guessable(secret: str) -> bool:
    """Tell whether text was plainly not drawn at random.

    It has few different characters (`aaaa…`), few different steps from one to the next (`abcd…`), or repeats a part
    (`changeme-changeme-…`).
    """
    fewest = min(_FEWEST, len(secret) // 4)
    steps = {ord(second) - ord(first) for first, second in pairwise(secret)}
    repeats = any(secret.startswith(secret[period:]) for period in range(1, len(secret) // 2 + 1))
    return repeats or len(set(secret)) < fewest or len(steps) < fewest


def _secrets(section: object) -> Iterator[tuple[str, list[str]]]:
    if isinstance(section, HoldsSecrets):
        for field, secrets in section.random_secrets().items():
            yield field, [secret.get_secret_value() for secret in secrets]
