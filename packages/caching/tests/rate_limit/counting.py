"""Counts the commands that a server has run."""

from redis.asyncio import Redis


async def calls(url: str) -> int:
    """Return how many scripts all clients of a server have run."""
    async with Redis.from_url(url) as redis:
        return int((await redis.info("commandstats")).get("cmdstat_evalsha", {"calls": 0})["calls"])
