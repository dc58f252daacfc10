"""Header fields of messages that only platform uses; those of the context are observability's."""

from typing import Final

ATTEMPTS_HEADER: Final = "tequipy_failed_attempts"
"""The number of failed attempts at a message of the outbox; absent from other messages."""
FAILING_HEADER: Final = "tequipy_failing_since"
"""The time of the first failure, as Unix time."""
