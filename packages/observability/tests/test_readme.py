"""The README's example works."""

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
USE = """
import asyncio, httpx

async def use() -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
        assert (await client.get("/orders/1", headers={"X-Correlation-ID": "abc"})).headers["X-Correlation-ID"] == "abc"
        print((await client.get("/metrics")).text)

asyncio.run(use())
"""


def test_the_example_logs_and_counts() -> None:
    """One request gives the log line and the metric that the README shows."""
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", example + USE], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stderr == ""
    assert '"message":"http_request"' in done.stdout
    assert '"correlation_id":"abc"' in done.stdout
    assert 'http_requests_total{method="GET",route="/orders/{number}",status="200"} 1.0' in done.stdout
