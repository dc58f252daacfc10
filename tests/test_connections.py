"""The connections to PostgreSQL of each process are those of deploy/README.md."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tequipy_devstack.proving import Deployment, eventually
from tequipy_devstack.proving.traffic import PASSWORD
from tequipy_devstack.servers import PostgresServer
from tequipy_platform.database import DatabaseSettings

from .kubernetes import manifests
from .promql import ROOT

README = (ROOT / "deploy/README.md").read_text(encoding="utf-8")
API = "/api/v1/auth"


def test_the_table_of_connections_is_that_of_the_settings() -> None:
    """The numbers with the defaults are those that `settings` prints, and their sum is right."""
    each = DatabaseSettings.model_validate({"url": "postgresql+asyncpg://localhost/tequipy"}).max_connections
    table = README.partition("| process | connections |")[2].partition("\n\n")[0]
    numbers = {row.split("|")[1].strip(): row.split("|")[3].split()[0] for row in table.splitlines()[2:]}
    expected = {"API": each, "worker": 2 * each, "relay": each + 1, "scheduler": each, "migration": 2}
    assert numbers == {name: str(number) for name, number in expected.items()}
    total = 2 * each + 2 * 2 * each + each + 1 + each
    assert f"have at most {total}; while all of them are replaced at once, {2 * total}" in README


def test_the_connections_of_kubernetes_are_those_of_the_manifests() -> None:
    """The page has the sums for the least and the largest number of pods that the manifests allow."""
    each = DatabaseSettings.model_validate({"url": "postgresql+asyncpg://localhost/tequipy"}).max_connections
    specs = [manifest for _, manifest in manifests() if "spec" in manifest]
    scalers = [every["spec"] for every in specs if "scaleTargetRef" in every["spec"]]
    scaled = {scaler["scaleTargetRef"]["name"]: scaler for scaler in scalers}
    least = largest = 0
    for deployment in (every for every in specs if every["kind"] == "Deployment"):
        spec = deployment["spec"]
        (container,) = spec["template"]["spec"]["containers"]
        kind, *options = container["args"]
        children = int(options[options.index("--concurrency") + 1]) if kind == "run" else 1
        pod = children * each + (kind == "relay")
        scaler = scaled.get(deployment["metadata"]["name"], {})
        least += pod * int(spec.get("replicas") or scaler.get("minReplicas") or scaler["minReplicaCount"])
        largest += pod * int(spec.get("replicas") or scaler.get("maxReplicas") or scaler["maxReplicaCount"])
    assert f"have at most {least} at the least number of pods, and {largest:,} at the largest" in README


@pytest.mark.prove
@pytest.mark.quick
def test_processes_keep_to_the_table_of_connections(deployment: Deployment, postgres: PostgresServer) -> None:
    """Under more load than the pool can serve, each kind of process has at most the connections of the table."""
    settings = {"TEQUIPY_DATABASE__POOL_SIZE": "2", "TEQUIPY_DATABASE__MAX_OVERFLOW": "1"}
    each = 2 + 1 + 2
    most = {"api": each, "run": 2 * each, "relay": each + 1, "beat": each}
    seen: dict[str, int] = dict.fromkeys(most, 0)

    def named(name: str) -> dict[str, str]:
        return settings | {"TEQUIPY_DATABASE__APPLICATION_NAME": f"proof-{name}"}

    def look() -> None:
        found = postgres.execute(
            "select application_name, count(*) from pg_stat_activity where application_name like 'proof-%' group by 1"
        )
        for line in found.splitlines():
            name, _, number = line.removeprefix("proof-").partition("|")
            seen[name] = max(seen[name], int(number))

    with (
        deployment.api(**named("api")) as api,
        deployment.worker(**named("run")),
        deployment.relay(**named("relay")),
        deployment.scheduler(**named("beat")),
        httpx.Client(base_url=api.url, timeout=60) as client,
        ThreadPoolExecutor(24) as crowd,
    ):

        def visit(number: int) -> None:
            body = {"email": f"person-{number}@example.com", "password": PASSWORD}
            assert client.post(f"{API}/register", json=body).status_code in {202, 503}
            assert client.get("/api/v1/readiness").status_code in {200, 503}

        visits = [crowd.submit(visit, number) for number in range(240)]
        while not all(each.done() for each in visits):
            look()
        for done in visits:
            done.result()

        def all_seen() -> bool:
            look()
            return all(seen.values())

        eventually("every process was seen", all_seen)
    print(f"\nconnections: {seen}, at most {most}")
    assert {name: number for name, number in seen.items() if number > most[name]} == {}
    assert seen["api"] >= 3, "the pool was at its limit"
