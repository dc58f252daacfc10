"""compose.yaml: every command, path, port and variable that it names exists."""

import os
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

import pytest
import yaml

from tequipy_api.settings import ApiSettings
from tequipy_platform.database import DatabaseSettings
from tequipy_platform.settings import AppSettings, load_settings
from tequipy_worker.catalogue import QUEUES
from tequipy_worker.settings import WorkerSettings

from .command_lines import check_command
from .compose import PRODUCTION, TEXT, MissingVariableError, document, services
from .promql import ROOT

SERVICES = services()
OURS = {name: service for name, service in SERVICES.items() if service.program}
MODELS: Mapping[str | None, type[AppSettings]] = {"tequipy-api": ApiSettings, "tequipy-worker": WorkerSettings}
PORTS = {"postgres": 5432, "redis-cache": 6379, "redis-broker": 6379}
EXAMPLE = (ROOT / ".env.example").read_text(encoding="utf-8")
METRICS_PORT = "TEQUIPY_OBSERVABILITY__METRICS_PORT"
METRICS_TOKEN = "TEQUIPY_OBSERVABILITY__METRICS_TOKEN"
VOLUME = "/var/lib/tequipy"


@pytest.mark.parametrize("service", OURS.values(), ids=OURS)
def test_commands_and_health_checks_exist(service) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 -- parametrised
    """The arguments of each entry point, and each health check, are accepted by the command line."""
    check_command([service.program, *service.command])
    if service.health_check:
        check_command(service.health_check)
        assert service.health_check[0] == service.program


@pytest.mark.parametrize("service", OURS.values(), ids=OURS)
def test_settings_are_accepted(service, monkeypatch, tmp_path) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 -- as above
    """Production starts with the variables of the service, those of `.env`, and no unknown one."""
    for name in [name for name in os.environ if name.startswith("TEQUIPY_")]:
        monkeypatch.delenv(name)
    for name, value in {**PRODUCTION, **service.environment}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    load_settings(MODELS[service.program], strict=True)


@pytest.mark.parametrize("name", ["TEQUIPY_ENVIRONMENT", "TEQUIPY_PUBLIC_URL", "POSTGRES_PASSWORD", "REDIS_PASSWORD"])
def test_required_variables_are_required(name: str) -> None:
    """Without a variable that every environment needs and that has no default, compose starts nothing."""
    with pytest.raises(MissingVariableError, match=name):
        document({**PRODUCTION, name: ""})


def test_the_example_names_every_variable() -> None:
    """`.env.example` names each variable that compose.yaml reads, and each that production requires."""
    named = set(re.findall(r"^#([A-Z0-9_]+)=", EXAMPLE, re.MULTILINE))
    read = set(re.findall(r"\$\{(\w+)", TEXT))
    assert (read | set(PRODUCTION)) - named == set()


def test_addresses_are_those_of_services() -> None:
    """Each URL of the environment names a server of compose.yaml by its name and port, broker and limits a database."""
    for service in OURS.values():
        urls = {name: urlsplit(value) for name, value in service.environment.items() if name.endswith("_URL")}
        del urls["TEQUIPY_PUBLIC_URL"], urls["TEQUIPY_STORAGE__URL"]
        assert {url.hostname: url.port for url in urls.values()} == PORTS
        assert urls["TEQUIPY_CACHE__URL"].hostname == "redis-cache"
        others = [urls["TEQUIPY_CELERY__BROKER_URL"], urls["TEQUIPY_LIMITER__URL"]]
        assert {(url.hostname, url.path) for url in others} == {("redis-broker", "/0"), ("redis-broker", "/1")}


def test_the_cache_forgets_and_the_broker_does_not() -> None:
    """The cache's server has limited memory and LFU; that of broker and limits never evicts, and keeps a file."""
    cache, broker = (document()["configs"][name]["content"].splitlines() for name in ("redis-cache", "redis-broker"))
    assert {"maxmemory 256mb", "maxmemory-policy allkeys-lfu", "appendonly no"} <= set(cache)
    assert {"maxmemory-policy noeviction", "appendonly yes"} <= set(broker)
    assert SERVICES["redis-broker"].mounts == {"/data": "broker"}


def test_each_queue_has_one_worker_and_mails_their_own() -> None:
    """Every queue is consumed by one service, and the queue of mails by a service of its own."""
    workers = {name: each.command[2].split(",") for name, each in OURS.items() if each.command[0] == "run"}
    assert sorted(queue for queues in workers.values() for queue in queues) == sorted(QUEUES)
    assert workers["mailer"] == ["email"]


def test_services_wait_for_what_they_need() -> None:
    """A service that others wait for has a health check, and nothing serves before the tables are there."""
    for service in SERVICES.values():
        for needed, condition in service.needs.items():
            healthy = condition == "service_healthy"
            assert healthy == bool(SERVICES[needed].health_check), f"{service.name} needs {needed}"
    servers = {"redis-cache": "service_healthy", "redis-broker": "service_healthy"}
    for name, service in OURS.items():
        expected = {"migrate": "service_completed_successfully", **servers}
        assert service.needs == ({"postgres": "service_healthy"} if name == "migrate" else expected)
        assert bool(service.health_check) == (name != "migrate")


def test_volumes_and_files_exist() -> None:
    """Each volume is declared and used, and each mounted path is in the repository."""
    declared = set(document()["volumes"])
    used = [source for service in SERVICES.values() for source in service.mounts.values()]
    assert {source for source in used if not source.startswith(".")} == declared
    assert [source for source in used if source.startswith(".") and not (ROOT / source).exists()] == []
    for service in SERVICES.values():
        configs = {each["source"] for each in service.definition.get("configs", [])}
        assert configs <= set(document()["configs"])


@pytest.mark.parametrize("service", OURS.values(), ids=OURS)
def test_the_root_is_read_only_and_what_is_written_is_mounted(service) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 -- as above
    """Objects and mails are on the volume that all processes share; heartbeats are in /tmp."""
    assert service.definition["read_only"] is True
    assert service.definition["tmpfs"] == ["/tmp"]  # noqa: S108 -- in the container
    assert service.mounts == {VOLUME: "objects"}
    written = [service.environment["TEQUIPY_STORAGE__URL"], service.environment["TEQUIPY_MAIL__FOLDER"]]
    assert all(path.removeprefix("file://").startswith(f"{VOLUME}/") for path in written)
    assert "TEQUIPY_WORKER__STATE_FOLDER" not in service.environment, "by default it is in /tmp"
    seconds = int(service.definition["stop_grace_period"].removesuffix("s"))
    server = ApiSettings.model_fields["server"].get_default(call_default_factory=True)
    assert seconds > server.drain_period + server.shutdown_timeout


def test_images_are_built_by_the_dockerfile() -> None:
    """Build targets and arguments are those of deploy/Dockerfile."""
    dockerfile = (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8")
    for service in OURS.values():
        build = service.definition["build"]
        assert ROOT / build["dockerfile"] == ROOT / "deploy/Dockerfile"
        assert f"AS {build['target']}\n" in dockerfile
        assert f"tequipy-{build['target']}" == service.program
        assert set(build["args"]) <= set(re.findall(r"^ARG (\w+)", dockerfile, re.MULTILINE))


def test_the_database_has_room_for_all_connections() -> None:
    """While all processes are replaced, old and new ones together stay below the limit, less those of superusers."""
    each = DatabaseSettings.model_validate({"url": "postgresql+asyncpg://localhost/tequipy"}).max_connections
    children = WorkerSettings.model_fields["worker"].get_default(call_default_factory=True).concurrency
    processes = {"api": each, "run": children * each, "beat": each, "relay": each + 1}
    kinds = [service.command[0].replace("serve", "api") for service in OURS.values()]
    most = sum(processes[kind] for kind in kinds if kind != "migrate")
    (limit,) = re.findall(r"max_connections=(\d+)", " ".join(SERVICES["postgres"].command))
    assert 2 * most <= int(limit) - 3, most


def test_prometheus_scrapes_every_process() -> None:
    """Each service that runs on has a target, by its name and the port of its metrics; all rules are loaded."""
    folder = ROOT / "deploy/prometheus"
    config = yaml.safe_load((folder / "prometheus.yaml").read_text(encoding="utf-8"))
    targets = {
        (name, discovery["port"])
        for job in config["scrape_configs"]
        for discovery in job["dns_sd_configs"]
        for name in discovery["names"]
    }
    assert targets == {(name, int(each.environment[METRICS_PORT])) for name, each in OURS.items() if name != "migrate"}
    assert config["rule_files"] == ["alerts-*.yaml"]
    arguments = SERVICES["prometheus"].command
    assert "--config.file=/etc/prometheus/prometheus.yaml" in arguments
    assert SERVICES["prometheus"].mounts["/etc/prometheus"] == "./deploy/prometheus"


def test_prometheus_sends_the_token_of_the_metrics() -> None:
    """Every scrape has the token of `.env` from a mounted file, which is not empty without a token: any is accepted."""
    (mounted,) = SERVICES["prometheus"].definition["configs"]
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yaml").read_text(encoding="utf-8"))
    files = {job["job_name"]: job["authorization"]["credentials_file"] for job in config["scrape_configs"]}
    assert set(files.values()) == {mounted["target"]}
    with_token = document({**PRODUCTION, METRICS_TOKEN: "abc"})["configs"]
    assert with_token[mounted["source"]]["content"] == "abc"
    assert document()["configs"][mounted["source"]]["content"] != ""


def test_grafana_has_data_source_and_dashboards() -> None:
    """The data source is the service of Prometheus, and the provider reads the folder where dashboards are mounted."""
    folder = ROOT / "deploy/grafana/provisioning"
    (source,) = yaml.safe_load((folder / "datasources/prometheus.yaml").read_text(encoding="utf-8"))["datasources"]
    (provider,) = yaml.safe_load((folder / "dashboards/tequipy.yaml").read_text(encoding="utf-8"))["providers"]
    url = urlsplit(source["url"])
    assert (url.hostname, url.port) == ("prometheus", 9090)
    assert SERVICES["grafana"].mounts[provider["options"]["path"]] == "./deploy/grafana"
    assert SERVICES["grafana"].mounts["/etc/grafana/provisioning"] == "./deploy/grafana/provisioning"


def test_only_the_api_is_published_and_only_to_this_machine() -> None:
    """No port is reachable from outside by default, and that of the API is the one that it listens on."""
    published = {
        name: service.definition["ports"] for name, service in SERVICES.items() if "ports" in service.definition
    }
    assert published == {
        "api": ["127.0.0.1:8000:8000"],
        "prometheus": ["127.0.0.1:9090:9090"],
        "grafana": ["127.0.0.1:3000:3000"],
    }
    command = SERVICES["api"].command
    assert command[command.index("--port") + 1] == "8000"
    assert {SERVICES[name].definition["profiles"][0] for name in ("prometheus", "grafana")} == {"observability"}
