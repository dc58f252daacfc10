"""A process that hits the limiter, for tests with several processes: `hammer.py JSON`; it prints a line of JSON.

When it is ready, it prints a line, and reads a line with the start time by the monotonic clock, which all processes of
a machine share. It hits for `seconds`, evenly at `rate` per second (0: as fast as it can), with `at_once` concurrent
tasks.
"""

import asyncio
import json
import sys
import time
from typing import Any

from tequipy_caching import RatePolicy
from tequipy_caching.wiring import CacheSettings, build_rate_limiter


async def hammer(settings: dict[str, Any], policy: RatePolicy, plan: dict[str, Any]) -> dict[str, Any]:
    """Hit as specified; return the number of hits, the times of the allowed ones, and the slowest duration."""
    passed: list[tuple[float, float]] = []
    hits, degraded, slowest = 0, 0, 0.0
    async with build_rate_limiter(CacheSettings.model_validate(settings)) as limiter:
        await limiter.peek(policy, "nobody")  # connects before the measurement
        print("ready", flush=True)
        starts = float(sys.stdin.readline())
        ends = starts + plan["seconds"]
        await asyncio.sleep(starts - time.monotonic())

        async def hit_on() -> None:
            nonlocal hits, degraded, slowest
            while (asked := time.monotonic()) < ends:
                decision = await limiter.hit(policy, "everybody")
                answered = time.monotonic()
                hits, degraded, slowest = hits + 1, degraded + decision.degraded, max(slowest, answered - asked)
                if decision.allowed:
                    passed.append((asked, answered))
                pause = starts + hits / plan["rate"] - answered if plan["rate"] else 0
                await asyncio.sleep(max(0, pause))

        await asyncio.gather(*(hit_on() for _ in range(plan["at_once"])))
    return {"hits": hits, "degraded": degraded, "slowest": slowest, "passed": passed}


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    print(json.dumps(asyncio.run(hammer(given["settings"], RatePolicy(**given["policy"]), given["plan"]))))
