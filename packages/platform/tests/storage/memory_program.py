"""Stores and reads one object of the given number of MiB, and prints the growth of the peak memory in MiB and times.

Arguments: the number of MiB, then the settings as JSON.
"""

import asyncio
import hashlib
import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

from tequipy_platform.storage import StorageSettings, build_storage

MIB = 1024 * 1024
WARM_UP = 12


async def content(size: int) -> AsyncIterator[bytes]:
    """Yield a stream of so many MiB, in pieces of an awkward size."""
    piece = bytes(range(256)) * 391  # 100,096 bytes
    for start in range(0, size * MIB, len(piece)):
        yield piece[: size * MIB - start]


def peak() -> float:
    """Return the largest resident memory of this process so far, in MiB.

    Not from `getrusage`, whose value begins with the memory of the process that started this one.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


async def main(size: int, settings: StorageSettings) -> None:
    """Store, read and delete an object, after a small one that loads what is loaded once."""
    storage = build_storage(settings)
    await storage.put("warm-up", content(WARM_UP))
    async for _ in storage.get("warm-up"):
        pass
    await storage.delete("warm-up")
    base, began = peak(), time.monotonic()
    stored = await storage.put("large", content(size))
    after_put, middle = peak(), time.monotonic()
    digest = hashlib.sha256()
    async for chunk in storage.get("large"):
        digest.update(chunk)
    ended = time.monotonic()
    assert stored.size == size * MIB
    assert stored.sha256 == digest.hexdigest()
    await storage.delete("large")
    figures = {"base": base, "put": after_put - base, "get": peak() - base}
    print(json.dumps(figures | {"put_seconds": middle - began, "get_seconds": ended - middle}))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), StorageSettings.model_validate_json(sys.argv[2])))
