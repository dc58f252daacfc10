"""Source of ids: UUIDv7 (RFC 9562, section 5.7); uuid-utils reseeds it in every forked child process."""

from uuid_utils.compat import uuid7

__all__ = ["uuid7"]
