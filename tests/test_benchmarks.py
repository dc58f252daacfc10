"""The tools of benchmarks/: load generators, calculated plans, and what they write into docs/performance.md."""

import asyncio
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tequipy_devstack.proving import eventually

from .wheels import find_uv

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))

from harness.chart import Bar, draw  # noqa: E402 -- after the path
from harness.document import PAGE, write_section  # noqa: E402 -- as above
from harness.load import BadResponses, Bundled, Generator, Request, Wrk, percentile  # noqa: E402 -- as above
from harness.measure import Comparison, Scenario, Target  # noqa: E402 -- as above
from harness.plan import MIX, Costs, Deployment, Measured, grow  # noqa: E402 -- as above
from harness.servers import Server  # noqa: E402 -- as above

GENERATORS = [pytest.param(Bundled(), id="bundled")]
if wrk := shutil.which("wrk"):
    GENERATORS.append(pytest.param(Wrk(wrk), id="wrk"))
ORDER = Request("POST", "/orders?urgent=1", {"Authorization": 'Bearer "a\\b"'}, {"note": 'a "quoted" é'})


class Recorder:
    """A server that keeps the bytes of each request, and splits its response into two pieces."""

    def __init__(self, status: str) -> None:
        self.status = status
        self.requests: list[bytes] = []
        self.port = 0

    async def serve(self, stop: asyncio.Event) -> None:
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            await stop.wait()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                found = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
                self.requests.append(head + await reader.readexactly(int(found[1]) if found else 0))
                writer.write(f"HTTP/1.1 {self.status}\r\nContent-Length: 2\r\n\r\n{{".encode())
                await writer.drain()
                await asyncio.sleep(0)
                writer.write(b"}")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@contextmanager
def recording(status: str) -> Iterator[Recorder]:
    """Serve in a thread of its own while the block lasts."""
    recorder, loop = Recorder(status), asyncio.new_event_loop()
    stop = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(recorder.serve(stop),))
    thread.start()
    try:
        eventually("the server listens", lambda: recorder.port)
        yield recorder
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


@pytest.mark.parametrize("generator", GENERATORS)
def test_a_generator_counts_responses_and_sends_the_request_as_given(generator: Generator) -> None:
    """Path, header fields and body arrive unchanged, and nearly every request that the server saw is counted."""
    with recording("200 OK") as server:
        load = generator.run(server.port, ORDER, 1)
    heads, bodies = zip(*(request.split(b"\r\n\r\n", 1) for request in server.requests), strict=True)
    assert {*bodies} == {ORDER.body.encode()}
    assert all(head.startswith(b"POST /orders?urgent=1 HTTP/1.1\r\n") for head in heads)
    assert all(b'authorization: bearer "a\\b"' in head.lower() for head in heads)
    assert 0 <= len(server.requests) - load.responses <= 2 * 16, "one response of each connection may be on its way"
    assert 0 < load.p99 <= load.seconds


@pytest.mark.parametrize("generator", GENERATORS)
def test_a_generator_refuses_errors(generator: Generator) -> None:
    """A run whose responses are errors gives no figure."""
    with recording("429 Too Many Requests") as server, pytest.raises(BadResponses):
        generator.run(server.port, Request("GET", "/"), 1)


@given(st.lists(st.floats(0, 10), min_size=1), st.integers(1, 100))
def test_a_percentile_is_the_least_value_that_suffices(values: list[float], percent: int) -> None:
    """At least so many percent of the values are at most the percentile, and fewer are at most any lesser value."""
    found = percentile(values, percent)
    assert 100 * sum(value <= found for value in values) >= percent * len(values)
    assert 100 * sum(value < found for value in values) < percent * len(values)


COSTS = st.builds(
    Costs,
    api=st.floats(50, 5000),
    other=st.floats(0, 50),
    postgres=st.floats(0, 2000),
    valkey=st.floats(0, 300),
    relay=st.floats(0, 500),
    worker=st.floats(0, 5000),
)
MEASURED = st.builds(
    Measured,
    kinds=st.fixed_dictionaries(dict.fromkeys(MIX, COSTS)),
    hashing=st.floats(0, 300_000),
    limit=st.floats(0, 100),
    delivery=st.floats(0, 2),
)


@given(MEASURED, st.floats(100, 100_000))
def test_a_plan_rises_to_its_target(measured: Measured, target: float) -> None:
    """A plan starts with one of each; each step serves more, and no more than the least of its capacities."""
    steps = [*grow(measured, target)]
    assert steps[0].deployment == Deployment() or steps[0].rate == target
    assert all(before.rate < after.rate <= target for before, after in pairwise(steps))
    for step in steps:
        capacities = step.deployment.capacities(measured)
        assert step.rate <= capacities[step.bottleneck] == min(capacities.values())


@given(MEASURED)
def test_a_plan_without_deliveries_reaches_every_target(measured: Measured) -> None:
    """If Redis has little to do, each step has more of what limited the one before, and the last one nothing idle."""
    kinds = {kind: replace(costs, valkey=0, other=0) for kind, costs in measured.kinds.items()}
    free = Measured(kinds, measured.hashing, limit=0, delivery=0)
    steps = [*grow(free, 100_000)]
    assert steps[-1].rate == 100_000
    for before, after in pairwise(steps[:-1]):
        assert after.deployment == before.deployment.with_more(before.bottleneck)
    last = steps[-1].deployment
    for name in ("api", "postgres", "relay", "worker"):
        if (number := getattr(last, name)) > 1:
            assert replace(last, **{name: number - 1}).bottleneck(free)[1] < 100_000


def test_a_plan_ends_where_more_processes_do_not_help() -> None:
    """If every process must drop copies of all changed values, their number has a limit, at which the plan ends."""
    costs = Costs(api=5000, other=50)
    steps = [*grow(Measured(dict.fromkeys(MIX, costs), hashing=0, limit=0, delivery=0), 100_000)]
    assert steps[-1].bottleneck == "api"
    assert steps[-1].rate < 0.7e6 / 50


def test_further_redis_servers_share_the_keys_of_cache_and_limits() -> None:
    """Beyond cache, limits and broker, shards raise what Redis allows, until it is the broker that limits it."""
    costs = dict.fromkeys(MIX, Costs(api=10)) | {"message": Costs(valkey=100), "read by a query": Costs(valkey=300)}
    measured = Measured(costs, hashing=0, limit=240, delivery=0)
    allowed = [Deployment(valkey=number).capacities(measured)["valkey"] for number in range(1, 8)]
    assert allowed == sorted(allowed)
    assert allowed[4] == pytest.approx(2 * allowed[2], rel=0.1)
    assert [step.bottleneck for step in grow(measured, 1e9)][-1] == "valkey"


def test_the_shares_of_the_mix_are_complete() -> None:
    """The kinds of requests that the plan assumes are all requests."""
    assert sum(MIX.values()) == pytest.approx(1)


def test_ratios_are_of_the_same_round() -> None:
    """A machine that is half as fast in one round changes no ratio; each is compared with the base in its own round."""
    server, request = Server(0, 0), Request("GET", "/")
    base = Target("base", server, request, rates=[100, 50, 100], cpu=[10, 20, 10], p99=[1, 2, 1])
    ours = Target("ours", server, request, rates=[200, 100, 200], cpu=[5, 10, 5], p99=[3, 6, 3])
    assert Comparison(ours, base).columns() == ["2.00", "2.00 to 2.00", "2.00", "2.00 to 2.00", "3.00"]
    assert Scenario("title", [base, ours]).rows()[1][:4] == ["ours", 200, 5, 3]


def test_a_section_is_replaced_and_the_rest_stays(tmp_path: Path) -> None:
    """Results replace what stood between their markers; a page without the markers is refused and unchanged."""
    page = tmp_path / "page.md"
    text = "before\n<!-- begin a -->\nold\n<!-- end a -->\n<!-- begin b -->\n<!-- end b -->\nafter\n"
    page.write_text(text)
    write_section("a", r"new \1", page)
    assert page.read_text() == text.replace("old\n", "\nnew \\1\n\n")
    with pytest.raises(ValueError, match="0 sections c"):
        write_section("c", "new", page)


def test_a_chart_has_a_bar_for_each_ratio() -> None:
    """The chart is well-formed, and the widths of its bars are in the proportion of the medians."""
    text = draw([("A & B", [Bar("bare", 1, 1, 1), Bar("<ours>", 1.5, 2, 2.5, ours=True)])], description="Ratios")
    space = "{http://www.w3.org/2000/svg}"
    bars = [each for each in ET.fromstring(text).iter(f"{space}rect") if each.get("class") in {"peer", "ours"}]  # noqa: S314 -- our own text
    peer, ours = (float(bar.attrib["width"]) for bar in bars)
    assert ours == pytest.approx(2 * peer, rel=0.01)


def test_the_page_has_results_in_every_section() -> None:
    """docs/performance.md holds a table in every section, and its chart exists."""
    page = PAGE.read_text(encoding="utf-8")
    sections = re.findall(r"<!-- begin (\w+) -->\n(.*?)<!-- end \1 -->", page, re.DOTALL)
    assert {name for name, _ in sections} == {"comparison", "overhead", "capacity"}
    assert all(text.count("\n|") > 3 for _, text in sections)
    for name in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page):
        assert (PAGE.parent / name).is_file()


@pytest.mark.prove
@pytest.mark.timeout(400)
def test_every_target_of_the_comparison_answers() -> None:
    """All servers of the comparison start with the versions of their lock file, and serve a round without one error."""
    environment = ROOT / "benchmarks/peers/environment"
    subprocess.run([find_uv(), "sync", "--locked", "--quiet", "--project", environment], check=True)
    command: list[str | Path] = [sys.executable, ROOT / "benchmarks/comparison.py", "--rounds", "1", "--print"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    print(output)
    assert len(re.findall(r"^\| \**(Tequipy|FastAPI with our)", output, re.MULTILINE)) == 5
    assert len(re.findall(r"^\| bare FastAPI ", output, re.MULTILINE)) == 5
