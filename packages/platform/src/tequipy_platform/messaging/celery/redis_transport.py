"""kombu's transport for Redis, without two of its faults: unreadable items, and acknowledgements that fail.

An unreadable item ended the worker. A message counts towards the prefetch limit until it is acknowledged, and kombu
keeps counting one whose acknowledgement failed. While all children are busy the worker reads nothing from Redis, so it
does not notice a restart either: after as many failures as the limit allows, it would wait for ever.
"""

from typing import Any

import redis
from kombu.transport import redis as kombu_redis

from tequipy_platform.messaging.celery.foreign import readable_item


class _Client(redis.Redis):
    """A client whose BRPOP, the command by which kombu receives messages, returns readable items only."""

    def parse_response(self, connection: Any, command_name: str | bytes, **options: Any) -> Any:  # noqa: ANN401 -- redis-py's signature
        """Read a reply of the server."""
        reply = super().parse_response(connection, command_name, **options)  # type: ignore[no-untyped-call]  # -- redis-py's
        if command_name == "BRPOP" and reply:
            key, item = reply
            # The key of a priority below the highest is the queue's name with a suffix.
            queue = key.decode("utf-8", "backslashreplace").rsplit(Channel.sep, 1)[0]
            return key, readable_item(item, queue)
        return reply


class QoS(kombu_redis.QoS):
    """kombu's list of unacknowledged messages; the outbox sends one again whose acknowledgement is lost."""

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge a message, and count it no longer even if that fails."""
        try:
            super().ack(delivery_tag)
        finally:
            self._quick_ack(delivery_tag)  # type: ignore[attr-defined]  # -- unknown to its stubs

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 -- kombu's signature
        """Return a message to its queue or drop it, and count it no longer even if that fails."""
        try:
            super().reject(delivery_tag, requeue)
        finally:
            self._quick_ack(delivery_tag)  # type: ignore[attr-defined]  # -- unknown to its stubs


class Channel(kombu_redis.Channel):
    """kombu's channel with this client and this list."""

    QoS = QoS

    def _get_client(self) -> type[redis.Redis]:
        super()._get_client()  # type: ignore[misc]  # -- unknown to its stubs; it checks the version of redis-py
        return _Client


class Transport(kombu_redis.Transport):
    """kombu's transport with this channel."""

    Channel = Channel
