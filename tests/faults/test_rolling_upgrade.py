"""The last release is replaced by this tree under load, process by process, and back: nobody notices."""

import re
import subprocess
import time
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tequipy_devstack.mail_sink import MailSink
from tequipy_devstack.proving import (
    Api,
    Balancer,
    Deployment,
    Load,
    Program,
    count,
    eventually,
    failed,
    fetch,
    in_background,
    slowest,
    traffic,
)
from tequipy_devstack.proving.traffic import PASSWORD
from tequipy_devstack.servers import PostgresServer

from ..accounts import create_accounts
from ..public_modules import ROOT
from ..wheels import Wheels, wheels_of_last_release, wheels_of_today
from .clients import AUTH, Clients

pytestmark = [pytest.mark.prove, pytest.mark.timeout(600)]

EMAILS = [f"roller-{number}@example.com" for number in range(6)]
TRAVELLER = "traveller@example.com"
FORWARD = ("relay", "beat", "worker", "api 1", "api 2")
"""The order of deploy/README.md; back it is the reverse."""


@dataclass
class Fleet:
    """Two API processes, a worker, a scheduler and a relay, each of either release, on the same servers."""

    deployment: Deployment
    releases: Sequence[Wheels]
    programs: dict[tuple[str, str], Program] = field(default_factory=dict)
    stack: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        for wheels in self.releases:
            run, beat, relay = (wheels.command("tequipy-worker", name) for name in ("run", "beat", "relay"))
            self.programs[wheels.name, "worker"] = self.deployment.worker(*run, **wheels.variables)
            self.programs[wheels.name, "beat"] = self.deployment.scheduler(*beat, **wheels.variables)
            self.programs[wheels.name, "relay"] = self.deployment.relay(*relay, **wheels.variables)
            for name in ("api 1", "api 2"):
                serve = wheels.command("tequipy-api", "serve")
                variables = wheels.variables | {"TEQUIPY_SERVER__DRAIN_PERIOD": "2"}
                self.programs[wheels.name, name] = self.deployment.api(*serve, **variables)

    @property
    def ports(self) -> list[int]:
        """The ports of all API processes, running or not."""
        return [program.port for program in self.programs.values() if isinstance(program, Api)]

    def api(self, release: str, name: str = "api 1") -> Api:
        program = self.programs[release, name]
        assert isinstance(program, Api)
        return program

    def start(self, release: str, name: str) -> None:
        """Start a process, and wait until it works."""
        program = self.programs[release, name]
        program.start()
        self.stack.callback(self._stop_if_running, program)
        if isinstance(program, Api):
            program.await_ready()
        else:
            wheels = next(each for each in self.releases if each.name == release)
            eventually(f"{name} of {release} works", lambda: self._is_healthy(wheels, program), every=1)

    def _is_healthy(self, wheels: Wheels, program: Program) -> bool:
        state = {"TEQUIPY_WORKER__STATE_FOLDER": str(program.log.with_suffix(""))}
        assert program.status is None, program.log.read_text()[-2000:]
        result = subprocess.run(
            wheels.command("tequipy-worker", "health"),
            cwd=self.deployment.folder,
            env=self.deployment.environment | wheels.variables | state,
            capture_output=True,
            check=False,
            timeout=60,
        )
        return result.returncode == 0

    @staticmethod
    def _stop_if_running(program: Program) -> None:
        if program.status is None:
            program.terminate()


@pytest.fixture
def releases(tmp_path: Path) -> tuple[Wheels, Wheels]:
    """Return the packages of the last release and those of this tree, installed from wheels."""
    last = wheels_of_last_release(tmp_path)
    if last is None:
        pytest.skip("nothing has been released yet, or the commit of the release is not in this clone")
    return last, wheels_of_today(tmp_path)


@pytest.fixture
def fleet(deployment: Deployment, releases: tuple[Wheels, Wheels]) -> Iterator[Fleet]:
    create_accounts(deployment, [*EMAILS, TRAVELLER])
    fleet = Fleet(deployment, releases)
    with fleet.stack:
        yield fleet


def version_of(api: Api) -> str:
    """Return the version in the contract that a process serves."""
    return str(fetch(f"{api.url}/openapi.json").raise_for_status().json()["info"]["version"])


def log_in(api: Api) -> dict[str, str]:
    body = {"email": TRAVELLER, "password": PASSWORD, "token_delivery": "body"}
    tokens: dict[str, str] = httpx.post(f"{api.url}{AUTH}/login", json=body, timeout=30).raise_for_status().json()
    return tokens


def bearer(tokens: dict[str, str]) -> dict[str, str]:
    return {"Authorization": f"Bearer {tokens['access_token']}"}


def me(api: Api, tokens: dict[str, str]) -> httpx.Response:
    return httpx.get(f"{api.url}{AUTH}/me", headers=bearer(tokens), timeout=30)


def await_name(api: Api, tokens: dict[str, str], name: str) -> None:
    eventually(f"{name} is seen", lambda: me(api, tokens).json()["name"] == name)


def travel(one: Api, other: Api, postgres: PostgresServer) -> bool:
    """Use at each API what the other has made; return whether the second reads the cached values of the first."""
    tokens = log_in(one)
    assert me(other, tokens).status_code == 200
    answer = httpx.post(f"{other.url}{AUTH}/refresh", json={"refresh_token": tokens["refresh_token"]}, timeout=30)
    tokens = answer.raise_for_status().json()
    assert me(one, tokens).status_code == 200
    # A change at each is seen at the other, which has the old value in its cache.
    for here, there, name in ((one, other, "Ada"), (other, one, "Grace")):
        change = httpx.patch(f"{here.url}{AUTH}/me", json={"name": name}, headers=bearer(tokens), timeout=30)
        assert change.status_code == 200, change.text
        await_name(there, tokens, name)
    # A change that no process knows of is not seen by whoever reads a cached value.
    change = httpx.patch(f"{one.url}{AUTH}/me", json={"name": "Cached"}, headers=bearer(tokens), timeout=30)
    assert change.status_code == 200
    for _ in range(3):  # a value that was loaded right after a change may not be stored
        assert me(one, tokens).json()["name"] == "Cached"
    postgres.execute("update auth.users set name = 'Changed' where name = 'Cached'", "tequipy")
    seen = me(other, tokens).json()["name"]
    assert seen in {"Cached", "Changed"}
    assert httpx.post(f"{one.url}{AUTH}/logout", headers=bearer(tokens), timeout=30).status_code == 204
    eventually("the token is refused", lambda: me(other, tokens).status_code == 401)
    return bool(seen == "Cached")


def await_the_end_of_all_messages(postgres: PostgresServer) -> Counter[str]:
    """Return the number of messages by state when none is unsettled."""
    query = "select state, task, attempts, error from platform.outbox where settled_at is null"
    deadline = time.monotonic() + 200
    while left := postgres.execute(query, "tequipy").splitlines():
        assert time.monotonic() < deadline, left[:20]
        time.sleep(0.5)
    return Counter(postgres.execute("select state from platform.outbox", "tequipy").split())


def mails_by_address(mails: MailSink, addresses: Sequence[str]) -> Counter[str]:
    """Return the number of mails to each of these addresses."""
    recipients = Counter(
        address for mail in mails.messages() for address in re.findall(r"[\w.+-]+@[\w.-]+", str(mail["To"]))
    )
    return Counter({address: recipients[address] for address in addresses if recipients[address]})


def test_a_rolling_upgrade_and_back_loses_nothing(fleet: Fleet, postgres: PostgresServer, mails: MailSink) -> None:
    """From the last release to this tree, back, and forward again: no request, session, mail or task is lost.

    The schema is that of this tree, as the upgrade in deploy/README.md has it.
    """
    old, new = (wheels.name for wheels in fleet.releases)
    shared: list[bool] = []
    versions: set[str] = set()
    with in_background(Balancer(fleet.ports)) as balancer:
        for name in FORWARD:
            fleet.start(old, name)
        eventually("the balancer sees both", lambda: len(balancer.ready) == 2)
        with (
            Load(balancer.url, traffic(balancer.url), rate=20) as load,
            Clients(balancer.url, EMAILS, pause=0.3) as clients,
        ):
            load.send(60)
            for before, after, order in ((old, new, FORWARD), (new, old, FORWARD[::-1]), (old, new, FORWARD)):
                for name in order:
                    fleet.start(after, name)
                    if name.startswith("api"):
                        eventually("the balancer sees three", lambda: len(balancer.ready) == 3)
                        versions |= {version_of(fleet.api(release, name)) for release in (before, after)}
                        shared.append(travel(fleet.api(before, name), fleet.api(after, name), postgres))
                        shared.append(travel(fleet.api(after, name), fleet.api(before, name), postgres))
                    load.send(40)
                    fleet.programs[before, name].terminate()
                    if name.startswith("api"):
                        eventually("the balancer sees two", lambda: len(balancer.ready) == 2)
            load.send(60)
        states = await_the_end_of_all_messages(postgres)
    samples = [*load.samples, *clients.samples]
    sent = mails_by_address(mails, clients.registered)
    lost = set(clients.registered) - set(sent)
    print(
        f"\n{old} -> {new} -> {old} -> {new}, 15 processes replaced: {len(samples)} requests, "
        f"failed {count(failed(samples))}, slowest {slowest(samples):.2f} s; sessions lost {len(clients.lost)}; "
        f"{len(clients.registered)} mails expected, lost {len(lost)}, doubled {sum(n > 1 for n in sent.values())}; "
        f"messages {dict(states)}; a value cached by the other release was read {sum(shared)} of {len(shared)} times"
    )
    assert versions == {old, tomllib.loads((ROOT / "apps/api/pyproject.toml").read_text("utf-8"))["project"]["version"]}
    assert count(failed(samples)) == {}
    assert clients.lost == []
    assert lost == set()
    assert set(sent.values()) == {1}
    assert set(states) == {"done"}
