"""A process that records when it receives each member of a set, for tests with processes: `watcher.py URL PREFIX`.

It prints a line when it is live. After the end of its input it waits for the member `end`, and prints a line of JSON:
each received member and the time, by the monotonic clock, which all processes of a machine share.
"""

import asyncio
import json
import sys
import time
from typing import Any

from pydantic import SecretStr

from tequipy_caching.expiring_set.shared_set import SharedExpiringSet
from tequipy_caching.wiring import CacheSettings, build_cache

heard: dict[str, float] = {}
on_message = SharedExpiringSet.on_message


def receive_and_note(self: SharedExpiringSet, body: Any) -> None:
    """Note the moment at which members are there."""
    on_message(self, body)
    for member in body:
        heard.setdefault(member, time.monotonic())


async def watch(url: str, prefix: str) -> None:
    """Receive members until `end` has arrived."""
    manager = build_cache(CacheSettings(url=SecretStr(url), prefix=prefix))
    members = manager.expiring_set("revoked")
    async with manager:
        while not members.live:
            await asyncio.sleep(0.002)
        print("live", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        while "end" not in members:
            await asyncio.sleep(0.002)


if __name__ == "__main__":
    SharedExpiringSet.on_message = receive_and_note  # type: ignore[method-assign]  # -- a look from outside
    asyncio.run(watch(*sys.argv[1:]))
    print(json.dumps(heard))
