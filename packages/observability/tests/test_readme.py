"""The README's examples work."""

import re
import subprocess
import sys
from pathlib import Path

from tequipy_observability import SpanKind, entry_span
from tequipy_observability.testing import recorded_spans

README = Path(__file__).parents[1] / "README.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
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
    example, _ = EXAMPLES
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", example + USE], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stderr == ""
    assert '"message":"http_request"' in done.stdout
    assert '"correlation_id":"abc"' in done.stdout
    assert 'http_requests_total{method="GET",route="/orders/{number}",status="200"} 1.0' in done.stdout


def test_the_example_of_a_span_records_it() -> None:
    """The step of the README is a child of the request's span, with its attribute."""
    _, example = EXAMPLES
    with recorded_spans() as recorder, entry_span("request", kind=SpanKind.SERVER, traceparent=None):
        exec(example, {})  # noqa: S102 -- the README is ours
    request, step = recorder.spans
    assert (step.name, step.attributes, step.parent_id) == ("render invoice", {"invoice.pages": 3}, request.span_id)
