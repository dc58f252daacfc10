"""A check whether the limiter's server evicts keys. Most eviction policies remove buckets first: their ttl is short."""

import logging

from tequipy_caching.domain.exceptions import CacheUnavailable
from tequipy_caching.infrastructure.redis import RedisLink

logger = logging.getLogger(__name__)


class EvictionCheck:
    """Asks the server once for its eviction policy, and logs a warning if it evicts."""

    def __init__(self, link: RedisLink) -> None:
        self.due = True
        """Whether the check must still be run: True until the server has answered."""
        self._link = link

    async def run(self) -> None:
        """Ask the server; if it does not answer, the check stays due."""
        self.due = False
        try:
            policy = await self._link.run("eviction", [])
        except CacheUnavailable:
            self.due = True
            return
        if isinstance(policy, bytes):
            logger.warning("limiter_eviction_detected", extra={"maxmemory_policy": policy.decode(errors="replace")})
