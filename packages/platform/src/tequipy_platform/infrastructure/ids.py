"""Where ids come from: UUIDv7 (RFC 9562, section 5.7), reseeded by uuid-utils in every forked child."""

from uuid_utils.compat import uuid7

__all__ = ["uuid7"]
