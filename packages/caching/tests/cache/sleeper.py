"""A process that reads one key continuously and is stopped by SIGSTOP: `sleeper.py URL PREFIX trusting|checking`.

For each line `hold` it prints `held` once its L1 has the key. For each line with a time of the monotonic clock, which
all processes of a machine share, it prints how often it has read "old" since then. A `trusting` process always assumes
that it receives every message: the mechanism is switched off.
"""

import asyncio
import sys
from math import inf
from time import monotonic

from pydantic import SecretStr

from tequipy_caching import CachePolicy
from tequipy_caching.redis import backplane
from tequipy_caching.wiring import CacheSettings, build_cache


async def sleeper(url: str, prefix: str) -> None:
    """Read the key and answer lines until the input ends."""
    settings = CacheSettings(url=SecretStr(url), prefix=prefix, policies={"words": CachePolicy(ttl=60)}, l2_timeout=5)
    old: list[float] = []
    async with build_cache(settings) as manager:
        words = manager.cache("words", str)

        async def read() -> None:
            while True:
                asked = monotonic()
                if await words.get("ada") == "old":
                    old.append(asked)
                await asyncio.sleep(0)

        reading = asyncio.create_task(read())
        while line := await asyncio.to_thread(sys.stdin.readline):
            if line == "hold\n":
                while words.peek("ada") != "old":
                    await asyncio.sleep(0)
                print("held", flush=True)
            else:
                print(sum(asked > float(line) for asked in old), flush=True)
        reading.cancel()


if __name__ == "__main__":
    if sys.argv[3] == "trusting":
        backplane.ANSWER_TIMEOUT = inf  # type: ignore[misc]  # -- the fault, put back
    asyncio.run(sleeper(*sys.argv[1:3]))
