"""kombu's transport for Redis, which replaces items that it cannot read; they would end the worker."""

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


class Channel(kombu_redis.Channel):
    """kombu's channel with this client."""

    def _get_client(self) -> type[redis.Redis]:
        super()._get_client()  # type: ignore[misc]  # -- unknown to its stubs; it checks the version of redis-py
        return _Client


class Transport(kombu_redis.Transport):
    """kombu's transport with this channel."""

    Channel = Channel
