"""Whether the limiter's server evicts: buckets live briefly, so under most policies they are the first to go."""

import logging

from tequipy_caching.domain.exceptions import CacheUnavailable
from tequipy_caching.infrastructure.redis import RedisLink

logger = logging.getLogger(__name__)


class EvictionCheck:
    """Asks the server once, and warns if it evicts."""

    def __init__(self, link: RedisLink) -> None:
        self.due = True
        """Whether the server has not answered yet."""
        self._link = link

    async def run(self) -> None:
        """Ask, and be due again if there was no answer."""
        self.due = False
        try:
            policy = await self._link.run("eviction", [])
        except CacheUnavailable:
            self.due = True
            return
        if isinstance(policy, bytes):
            logger.warning("limiter_server_evicts", extra={"maxmemory_policy": policy.decode(errors="replace")})
