"""deploy/Dockerfile: read against the commands, files and manifests that it names, and built and started for real."""

import json
import os
import re
import shutil
import stat
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from signal import SIGTERM
from typing import Any

import httpx
import pytest

from tequipy_devstack.mail_sink import MailSink
from tequipy_devstack.ports import free_port
from tequipy_devstack.proving import eventually, fetch
from tequipy_devstack.proving.traffic import ADMIN, PASSWORD
from tequipy_devstack.servers import PostgresServer, ValkeyServer

from .command_lines import check_command
from .images import DOCKERFILE, MISSING, Builder, Container, Image, installed
from .promql import ROOT

TEXT = re.sub(r" \\\n +", " ", DOCKERFILE.read_text(encoding="utf-8"))
TARGETS = {"api": "celery", "worker": "fastapi"}
"""The targets, and what each does without."""
LARGEST_API = 150_000_000
"""Bytes that the image of the API may have beyond its base."""
USER = 54321
VERSION = "0123abc"


def stages() -> dict[str, tuple[str, list[tuple[str, str]]]]:
    """Return base and instructions of each stage."""
    found: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    name = ""
    for line in TEXT.splitlines():
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            found[name] = base, []
        elif instruction.isupper() and name:
            found[name][1].append((instruction, rest))
    return found


def exec_form(target: str, instruction: str) -> list[str]:
    """Return the one command of an instruction, which must be in exec form: a shell is not needed."""
    (text,) = [rest for kind, rest in stages()[target][1] if kind == instruction]
    command = json.loads(text.partition("CMD ")[2] if instruction == "HEALTHCHECK" else text)
    return [str(word) for word in command]


def test_stages_are_built_on_each_other_and_on_the_base() -> None:
    """Each stage stands on a base argument or an earlier stage, and copies from earlier ones only."""
    known: set[str] = set()
    for name, (base, instructions) in stages().items():
        assert base in {"${BASE}", "${RUNTIME}", *known}, name
        sources = {match for _, rest in instructions for match in re.findall(r"--from=(\S+)", rest)}
        assert sources <= known, name
        known.add(name)
    assert set(TARGETS) <= known


def test_no_command_runs_in_the_images() -> None:
    """The stages of the images need neither a shell nor a package manager of their base."""
    instructions = {name: {kind for kind, _ in found} for name, (_, found) in stages().items()}
    assert all("RUN" not in instructions[name] for name in ("runtime", *TARGETS))


@pytest.mark.parametrize("target", TARGETS)
def test_the_commands_of_an_image_exist(target: str) -> None:
    """Entry point, default command and health check are scripts of the app, with arguments that they accept."""
    manifest = tomllib.loads((ROOT / f"apps/{target}/pyproject.toml").read_text(encoding="utf-8"))
    entry_point = exec_form(target, "ENTRYPOINT")
    assert entry_point == [*manifest["project"]["scripts"]]
    check_command([*entry_point, *exec_form(target, "CMD")])
    check_command(exec_form(target, "HEALTHCHECK"))


def test_the_files_that_the_build_copies_exist() -> None:
    """What one stage copies from another is made there, and both environments are built at the path of the images."""
    copied = {tuple(match) for match in re.findall(r"^COPY --from=(\S+) (\S+) \S+$", TEXT, re.MULTILINE)}
    assert copied == {
        ("manifests", "/source"),
        ("build", "/data/"),
        ("build-api", "/app"),
        ("build-worker", "/app"),
    }
    assert "UV_PROJECT_ENVIRONMENT=/app " in TEXT
    assert "mkdir -p /data/var/lib/tequipy" in TEXT


@pytest.mark.parametrize("target", TARGETS)
def test_third_party_packages_have_a_layer_of_their_own(target: str) -> None:
    """The packages of the lock file are installed before the sources are copied, and the lock is checked after."""
    kinds = [
        kind if kind == "COPY" else "frozen" if "--frozen" in rest else "locked"
        for kind, rest in stages()[f"build-{target}"][1]
        if kind in {"COPY", "RUN"}
    ]
    assert kinds == ["frozen", "COPY", "locked"]


def test_the_build_uses_the_uv_of_the_makefile() -> None:
    """Images and developers have the same version of uv."""
    (makefile,) = re.findall(r"^UV_VERSION := (\S+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert re.findall(r"\buv==(\S+)", TEXT) == [makefile]


def test_the_context_has_what_the_build_needs() -> None:
    """`.dockerignore` lets the workspace through, and neither tests nor what a developer's folder contains."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    members = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["uv"]["workspace"]["members"]
    assert allowed == {"pyproject.toml", "uv.lock", *(pattern.partition("/")[0] for pattern in members)}
    assert {"**/tests", "**/__pycache__"} <= set(rules)


def is_for_linux(component: dict[str, Any]) -> bool:
    """Return whether a component of an SBOM is not one that is installed on Windows only."""
    return not any("win32" in each["value"] for each in component.get("properties", []))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Image]]:
    with Builder(tmp_path_factory.mktemp("images")) as builder:
        yield {target: builder.build(target, version=VERSION) for target in TARGETS}


proof = [
    pytest.mark.prove,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(bool(MISSING) or os.geteuid() != 0, reason=f"needs root and apt-get install {MISSING}"),
]


@pytest.mark.parametrize("target", [pytest.param(target, marks=proof) for target in TARGETS])
def test_an_image_holds_what_its_app_needs(target: str, images: dict[str, Image], tmp_path: Path) -> None:
    """Exactly the packages of the SBOM, with bytecode that is used; no other app's framework, uv, pip, tests, shell."""
    image = images[target]
    found = installed(image.root)
    print(f"\n{target}: {image.size / 1e6:.1f} MB beyond its base, {len(found)} packages")
    assert target != "api" or image.size <= LARGEST_API
    assert not {TARGETS[target], "uv", "pip", "pytest", "tequipy-devstack"} & set(found)
    subprocess.run([shutil.which("make") or "make", "sbom", f"DIST={tmp_path}"], cwd=ROOT, check=True, timeout=120)
    document = json.loads((tmp_path / f"tequipy-{target}.cdx.json").read_text(encoding="utf-8"))
    components = [document["metadata"]["component"], *filter(is_for_linux, document["components"])]
    assert found == {component["name"]: component["version"] for component in components}
    assert not [path for path in image.root.glob("**/bin/*") if path.name in {"sh", "bash", "dash", "uv", "pip", "cc"}]
    assert not (image.root / "source").exists()
    assert stat.S_IMODE((image.root / "var/lib/tequipy").stat().st_mode) == 0o1777, "any user may write objects"
    code = next(image.root.glob("app/lib/python3*/site-packages/tequipy_*/__pycache__/*.pyc")).read_bytes()
    assert code[4:8] == b"\1\0\0\0", "never checked against its source (PEP 552)"


def succeeds(container: Container, *options: str) -> bool:
    """Return whether the health check of a container ends with status 0."""
    return container.health(*options) == 0


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    with (
        PostgresServer(tmp_path / "postgres") as postgres,
        ValkeyServer(tmp_path / "valkey") as redis,
        MailSink(tmp_path / "mail") as mails,
    ):
        yield {
            "TEQUIPY_ENVIRONMENT": "test",
            "TEQUIPY_PUBLIC_URL": "https://app.example.com",
            "TEQUIPY_DATABASE__URL": postgres.create_database("tequipy"),
            "TEQUIPY_CACHE__URL": redis.url(0),
            "TEQUIPY_CELERY__BROKER_URL": redis.url(1),
            "TEQUIPY_MAIL__SMTP_URL": mails.url,
            "TEQUIPY_SERVER__DRAIN_PERIOD": "0",
            "TEQUIPY_AUTH__BCRYPT_COST": "4",  # this test does not test hashing
        }


@pytest.mark.parametrize("container_user", [pytest.param(USER, marks=proof)])
def test_the_images_work(
    container_user: int, images: dict[str, Image], environment: dict[str, str], tmp_path: Path
) -> None:
    """By their entry points, as a user without a name, on a read-only root: healthy, ready, serving, and stopping."""
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(0o1777)

    def container(name: str, target: str) -> Container:
        return Container(images[target], tmp_path / name, data, user=container_user, environment=environment)

    api, worker = container("api", "api"), container("worker", "worker")
    port = ["--port", str(free_port())]
    url = f"http://127.0.0.1:{port[1]}"
    code = "import os; open('/tmp/x', 'w'); open('/var/lib/tequipy/x', 'w'); print(os.getuid()); open('/app/x', 'w')"
    writing = api.run("python3", "-c", code)
    assert writing.stdout == f"{container_user}\n"
    assert "Read-only file system: '/app/x'" in writing.stderr
    assert worker.health() == api.health(*port) == 1
    for words in (["migrate", "upgrade", "head"], ["create-admin", "--email", ADMIN]):
        done = api.run("tequipy-api", *words, text=PASSWORD)
        assert done.returncode == 0, done.stderr
    with ExitStack() as stack:
        programs = {"api": stack.enter_context(api.program(*images["api"].config["Cmd"], *port))}
        processes = {kind: container(kind, "worker") for kind in ("run", "beat", "relay")}
        for kind, each in processes.items():
            programs[kind] = stack.enter_context(each.program(kind))
        eventually("the API is healthy and ready", lambda: api.health(*port) == api.health(*port, "--ready") == 0)
        for kind, each in processes.items():
            eventually(f"{kind} is ready", partial(succeeds, each, kind, "--ready"))
            assert each.health() == 0
        body = {"email": ADMIN, "password": PASSWORD, "token_delivery": "body"}
        assert httpx.post(f"{url}/api/v1/auth/login", json=body, timeout=30).status_code == 200
        assert f'version="{VERSION}"' in fetch(f"{url}/metrics").text
        register = {"email": "new@example.com", "password": PASSWORD}
        assert httpx.post(f"{url}/api/v1/auth/register", json=register, timeout=30).status_code == 202
        eventually("the worker has sent a mail", lambda: [*(tmp_path / "mail").glob("*.eml")] != [])
        statuses = {name: each.terminate() for name, each in programs.items()}
    assert statuses.pop("api") in {0, -SIGTERM}, "uvicorn raises the signal again when it has shut down"
    assert statuses == {"run": 0, "beat": 0, "relay": 0}
