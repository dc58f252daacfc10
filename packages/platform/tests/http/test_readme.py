"""The README's examples of outgoing calls run."""

import ast
import re
from pathlib import Path
from types import SimpleNamespace

import httpx
from prometheus_client import CollectorRegistry

from tequipy_devstack.proving.upstream import Upstream, reply
from tequipy_platform.http import HttpClients, HttpSettings
from tequipy_platform.testing.http import MemoryUpstreams


def example(number: int) -> str:
    """Return an example of the section about outgoing calls."""
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    _, _, section = readme.partition("## Calling other services\n")
    return re.findall(r"```python\n(.*?)```", section.partition("\n## ")[0], flags=re.DOTALL)[number]  # type: ignore[no-any-return]


async def run(source: str, **names: object) -> dict[str, object]:
    """Run a source that awaits, and return the names that it defines."""
    code = compile(source, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(code, names)  # noqa: S307 -- the README is ours
    if result is not None:
        await result
    return names


async def test_a_call(upstream: Upstream) -> None:
    """The first example fetches prices."""
    upstream.route("/prices", reply(200, b'{"apple": 1}'))
    source = example(0).replace("https://api.example.com", upstream.url)
    names = await run(source, settings=SimpleNamespace(http=HttpSettings()), registry=CollectorRegistry())
    assert names["prices"] == {"apple": 1}
    assert upstream.requests[0].headers["user-agent"] == "shop/1.2.0"


async def test_a_test_without_a_network() -> None:
    """The second example tests a service that fetches prices."""

    class Prices:
        def __init__(self, http: HttpClients) -> None:
            self._http = http

        async def get(self) -> object:
            return (await self._http.default.get("https://api.example.com/prices")).json()

    source = example(1)
    service, check = source.split("assert", 1)
    names = await run(service, MemoryUpstreams=MemoryUpstreams, httpx=httpx, Prices=Prices)
    prices = names["prices"]
    assert isinstance(prices, Prices)
    assert await prices.get() == {"apple": 1}
    await run(f"assert{check}", **names)
