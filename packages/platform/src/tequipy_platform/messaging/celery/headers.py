"""Header fields of the broker's messages that only platform uses; those of the context are observability's."""

from typing import Final

SCHEMA_HEADER: Final = "tequipy_schema"
"""The version of the format of the broker's message, which holds the id of an outbox row and no payload."""
PRODUCER_HEADER: Final = "tequipy_producer"
"""The version of the app that wrote the outbox row."""
