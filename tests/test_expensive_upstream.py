"""docs/how-to/expensive-upstream.md: its code runs, with a real Redis and a local upstream, and does what it says."""

import asyncio
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import redis

from tequipy_caching.wiring import CacheSettings, build_cache
from tequipy_devstack.proving.network import in_background
from tequipy_devstack.proving.waiting import eventually
from tequipy_platform import Unavailable
from tequipy_platform.http import HttpSettings, build_http_clients

PAGE = Path(__file__).parents[1] / "docs/how-to/expensive-upstream.md"
FILES = dict(re.findall(r"```python\n# (\S+\.py)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL))
QUESTION = "Why is the sky blue?"
PROCESSES = 4


class Upstream:
    """A model that counts its calls; it answers with their number, or as a test says."""

    def __init__(self) -> None:
        self.url = ""
        self.calls = 0
        self.keys: set[str] = set()
        self.status = 200
        self.waits = False
        """Whether calls wait, without an answer."""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        await reader.readexactly(int(re.findall(r"content-length: (\d+)", head, re.IGNORECASE)[0]))
        self.calls += 1
        self.keys |= set(re.findall(r"idempotency-key: (\S+)", head, re.IGNORECASE))
        number = self.calls
        while self.waits:
            await asyncio.sleep(0.02)
        body = json.dumps({"text": f"answer {number}"})
        writer.write(
            f"HTTP/1.1 {self.status} .\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
        )
        writer.close()


@asynccontextmanager
async def serving(upstream: Upstream) -> AsyncIterator[None]:
    server = await asyncio.start_server(upstream.answer, "127.0.0.1", 0)
    upstream.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield
        upstream.waits = False


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    upstream = Upstream()
    with in_background(serving(upstream)):
        yield upstream


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the files of the page."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


@pytest.fixture
def module(folder: Path) -> ModuleType:
    """Return the page's feature as a module."""
    spec = importlib.util.spec_from_file_location("answers", folder / "answers.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
async def answers(module: ModuleType, redis_url: str, upstream: Upstream) -> AsyncIterator[Any]:
    """Return the feature as a process has it."""
    async with AsyncExitStack() as stack:
        settings = CacheSettings.model_validate({"url": redis_url, "policies": module.CACHE_POLICIES})
        cache = await stack.enter_async_context(build_cache(settings))
        http = await stack.enter_async_context(
            build_http_clients(HttpSettings.model_validate({"attempts": 1}), app_name="shop", app_version="1.0")
        )
        async with asyncio.timeout(30):
            while cache.health().backplane != "live":
                await asyncio.sleep(0.01)
        yield module.Answers(http, cache, url=upstream.url)


@contextmanager
def programs(folder: Path, **variables: str) -> Iterator[list[subprocess.Popen[str]]]:
    """Start the page's program in several processes."""
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "program.py"],
            cwd=folder,
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(PROCESSES)
    ]
    try:
        yield running
    finally:
        for process in running:
            process.kill()
            process.communicate()


def subscribers_of(redis_url: str) -> int:
    """Return the number of connections to Redis that are subscribed to a channel."""
    with redis.Redis.from_url(redis_url) as connection:
        return sum(each["sub"] != "0" for each in connection.client_list())


def test_many_processes_ask_once(folder: Path, redis_url: str, upstream: Upstream) -> None:
    """Four processes with 50 tasks each ask at once: the upstream gets one call, and all get its answer."""
    upstream.waits = True
    with programs(folder, REDIS_URL=redis_url, MODEL_URL=upstream.url) as running:
        eventually("a call has arrived", lambda: upstream.calls)
        eventually("all processes are on the channel", lambda: subscribers_of(redis_url) >= PROCESSES)
        upstream.waits = False
        outputs = [process.communicate(timeout=60) for process in running]
    print(f"\n{PROCESSES} processes with 50 tasks: {upstream.calls} call")
    assert [printed for printed, _ in outputs] == ["50 answer 1\n"] * PROCESSES
    assert not any("Traceback" in errors for _, errors in outputs), outputs
    assert (upstream.calls, len(upstream.keys)) == (1, 1)


async def test_the_old_answer_is_served_while_the_upstream_is_down(answers: Any, upstream: Upstream) -> None:
    """After an answer was expired, a failing upstream is asked once for all callers, and they get the old answer."""
    assert (await answers.to(QUESTION)).text == "answer 1"
    upstream.status = 503
    await answers.renew(QUESTION)
    found = await asyncio.gather(*(answers.to(QUESTION) for _ in range(50)))
    assert {answer.text for answer in found} == {"answer 1"}
    assert upstream.calls == 2
    upstream.status = 200
    await answers.renew(QUESTION)
    assert (await answers.to(QUESTION)).text == "answer 3"


async def test_the_old_answer_is_served_while_the_upstream_is_slow(answers: Any, upstream: Upstream) -> None:
    """A caller does not wait for a slow new answer, which is stored when it arrives."""
    assert (await answers.to(QUESTION)).text == "answer 1"
    upstream.waits = True
    await answers.renew(QUESTION)
    assert (await answers.to(QUESTION)).text == "answer 1"
    upstream.waits = False
    async with asyncio.timeout(30):
        while (await answers.to(QUESTION)).text == "answer 1":
            await asyncio.sleep(0.02)
    assert (await answers.to(QUESTION)).text == "answer 2"
    assert upstream.calls == 2


async def test_without_an_old_answer_a_failure_is_an_error(answers: Any, upstream: Upstream) -> None:
    """Failures are not cached: the next caller asks again."""
    upstream.status = 500
    for _ in range(2):
        with pytest.raises(Unavailable):
            await answers.to(QUESTION)
    upstream.status = 200
    assert (await answers.to(QUESTION)).text == "answer 3"


@pytest.mark.parametrize("status", [404, 422])
async def test_a_refusal_is_cached(answers: Any, module: ModuleType, upstream: Upstream, status: int) -> None:
    """A question that the upstream refuses is sent once, however many ask."""
    upstream.status = status
    for _ in range(3):
        results = await asyncio.gather(*(answers.to(QUESTION) for _ in range(10)), return_exceptions=True)
        assert {type(each) for each in results} == {module.QuestionRefused}
    assert upstream.calls == 1


def test_the_test_of_the_page_passes(folder: Path) -> None:
    """The page's test runs without network and Redis."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto", "test_answers.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr
