"""deploy/README.md: its commands exist, its names and links lead somewhere, and its backup can be restored."""

import os
import re
import shlex
import subprocess
import time
from pathlib import Path
from urllib.parse import urlsplit

import click
import httpx
import pytest
import yaml

from tequipy_api.cli import main as api_command
from tequipy_devstack.mail_sink import MailSink
from tequipy_devstack.proving import Deployment, eventually
from tequipy_devstack.proving.traffic import ADMIN, PASSWORD
from tequipy_devstack.servers import PostgresServer, ValkeyServer
from tequipy_worker.cli import main as worker_command

from .accounts import mailed_token
from .compose import services
from .conftest import DATABASE
from .kubernetes import manifests
from .promql import ROOT, panels

README = (ROOT / "deploy/README.md").read_text(encoding="utf-8")
COMMANDS = sorted(set(re.findall(r"(?:`|\$ .*)(tequipy-(?:api|worker) [^`\n]+)", README)))
CONSOLE = re.findall(r"^ *\$ (.+)$", README, re.MULTILINE)
SERVER_COMMANDS = [line for line in CONSOLE if line.startswith(("pg_", "psql", "createdb"))]
API = "/api/v1/auth"
GRACE = {"email": "grace@example.com", "password": "correct horse battery staple"}


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_exists(line: str) -> None:
    """Each command that the page names is one of ours, with arguments that it accepts."""
    program, *words = shlex.split(line)
    command: click.Command = {"tequipy-api": api_command, "tequipy-worker": worker_command}[program]
    context = click.Context(command)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        assert found is not None, line
        command, words = found, words[1:]
    command.make_context(line, words, resilient_parsing=False)


def test_every_link_leads_to_a_heading() -> None:
    """Each relative link of the page names a file, and its anchor a heading there."""
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert len(links) > 10
    for link in links:
        file, _, anchor = link.partition("#")
        path = (ROOT / "deploy" / file).resolve() if file else ROOT / "deploy/README.md"
        assert path.exists(), link
        headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE) if anchor else []
        assert not anchor or anchor in {heading.lower().replace(" ", "-") for heading in headings}, link


def test_every_file_and_service_that_is_named_exists() -> None:
    """Paths lead to files, services are those of compose.yaml, and Deployments and Jobs those of the manifests."""
    paths = set(re.findall(r"\bdeploy/[\w./-]*\w(?![\w./-]*\*)", README))
    assert len(paths) > 4
    assert {path for path in paths if not (ROOT / path).exists()} == set()
    services = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
    assert set(re.findall(r"docker compose (?:exec|run --rm) (\w+)", README)) <= set(services)
    manifests = [path.read_text(encoding="utf-8") for path in ROOT.glob("deploy/kubernetes/**/*.yaml")]
    documents = [each for text in manifests for each in yaml.safe_load_all(text) if each]
    kinds = {f"{each['kind'].lower()}/{each.get('metadata', {}).get('name')}" for each in documents}
    assert set(re.findall(r"\b(?:deployment|job)/\w+", README)) <= kinds


def test_rotation_says_how_to_roll_and_names_the_roles_of_each_deployment() -> None:
    """It replaces the Secret of the manifests, and changes the password of the one role that compose.yaml creates."""
    rotation = README.partition("## Rotation of secrets")[2].partition("\n## ")[0]
    (secret,) = re.findall(r"create secret generic (\S+) --from-env-file=secrets.env --dry-run=client", rotation)
    jobs = [each for _, each in manifests() if each["kind"] == "Deployment"]
    sources = [each["spec"]["template"]["spec"]["containers"][0]["envFrom"] for each in jobs]
    assert [source for each in sources for source in each if "secretRef" in source] == [
        {"secretRef": {"name": secret}} for _ in jobs
    ]
    ((user, role),) = re.findall(r'psql --username=(\w+) --command="ALTER ROLE (\w+) PASSWORD', rotation)
    environment = services()["postgres"].environment
    assert {user, role} == {environment["POSTGRES_USER"]}
    assert {"POSTGRES_PASSWORD", "REDIS_PASSWORD"} <= set(re.findall(r"`([A-Z_]+)`", rotation))


def test_every_panel_of_the_table_exists() -> None:
    """What rises, in the table of scaling, are titles of panels."""
    table = README.partition("| what rises |")[2].partition("\n\n")[0]
    named = {name for row in table.splitlines()[2:] for name in re.findall(r"`([^`]+)`", row.split("|")[1])}
    assert len(named) > 4
    assert named <= {panel["title"] for panel in panels()}


@pytest.mark.parametrize("statement", re.findall(r"`(SELECT [^`]+)`", README))
def test_a_query_runs(statement: str, postgres_server: PostgresServer, database_url: str) -> None:
    """PostgreSQL runs each query of the page on our tables."""
    postgres_server.execute(statement, database=urlsplit(database_url).path[1:])


def acl(text: str, user: str) -> set[str]:
    """Return the rules for a user in a page."""
    found = re.search(rf"^ *ACL SETUSER {user} on >password (.+)$", text, re.MULTILINE)
    assert found is not None, user
    return set(found[1].split())


def test_the_rules_for_redis_are_those_of_the_packages() -> None:
    """The users of the page, as which `secrets.env.example` logs in, have the packages' rules for its databases."""
    caching = (ROOT / "packages/caching/README.md").read_text(encoding="utf-8")
    worker = (ROOT / "apps/worker/README.md").read_text(encoding="utf-8")
    assert acl(README, "cache") == acl(caching, "cache") | acl(caching, "sets")
    channel = "&tequipy:rate:invalidations:"
    assert acl(README, "limiter") == acl(caching, "limiter") - {f"{channel}0"} | {f"{channel}1", "+select", "+info"}
    assert acl(README, "broker") == acl(worker, "broker")
    example = (ROOT / "deploy/kubernetes/secrets.env.example").read_text(encoding="utf-8")
    urls = [urlsplit(url) for url in re.findall(r"=(rediss://\S+)", example)]
    assert {(url.username, url.path) for url in urls} == {("cache", "/0"), ("broker", "/0"), ("limiter", "/1")}


def test_the_files_of_rules_are_those_that_the_page_loads() -> None:
    """The pattern of the page matches every file of rules, and no other file."""
    pattern = re.search(r"Load the rules `([^`]+)`", README)
    assert pattern is not None
    with_rules = {
        path for path in ROOT.glob("deploy/prometheus/*.yaml") if "\ngroups:" in "\n" + path.read_text(encoding="utf-8")
    }
    assert set(ROOT.glob(pattern[1])) == with_rules != set()


def run(line: str, server: PostgresServer, folder: Path) -> None:
    """Run a command of PostgreSQL as the page has it, against a server; each role has the superuser's password."""
    name, *arguments = shlex.split(line.replace("…", server.password))
    environment = {
        "PGHOST": "127.0.0.1",
        "PGPORT": str(server.port),
        "PGUSER": "postgres",
        "PGPASSWORD": server.password,
    }
    command = [server._program(name), *arguments]
    subprocess.run(command, env=os.environ | environment, cwd=folder, check=True, timeout=120)


def rows(server: PostgresServer) -> dict[str, str]:
    """Return the number of rows and a digest of each table of ours."""
    tables = server.execute(
        "select format('%I.%I', schemaname, tablename) from pg_tables"
        " where schemaname in ('auth', 'platform', 'reporting') order by 1",
        DATABASE,
    ).split()
    digest = (
        "select count(*) || ' ' || coalesce(md5(string_agg(row ::text, '' order by row ::text)), '') from {} as row"
    )
    return {table: server.execute(digest.format(table), DATABASE).strip() for table in tables}


def create_app_role(server: PostgresServer) -> None:
    """Create the role of the processes, or give it its password again."""
    server.execute("drop role if exists tequipy_app_2")
    if not server.execute("select 1 from pg_roles where rolname = 'tequipy_app'"):
        server.execute("create role tequipy_app login")
    server.execute("alter role tequipy_app password 'first'")


def grant_rights(server: PostgresServer) -> None:
    """Grant the role the use of all tables."""
    server.execute("grant usage on schema auth, platform, reporting to tequipy_app", DATABASE)
    for rights in ("select, insert, update, delete on all tables", "execute on all functions"):
        server.execute(f"grant {rights} in schema auth, platform, reporting to tequipy_app", DATABASE)


def url_of(server: PostgresServer, login: str) -> str:
    """Return the URL of the database for a role and its password."""
    return server.url(DATABASE).replace(f"postgres:{server.password}@", f"{login}@")


def log_in(client: httpx.Client, email: str, password: str) -> dict[str, str]:
    """Return the header of a new session."""
    body = {"email": email, "password": password, "token_delivery": "body"}
    answer = client.post(f"{API}/login", json=body).raise_for_status()
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


@pytest.mark.prove
@pytest.mark.quick
def test_a_backup_is_restored_into_an_empty_server(
    deployment: Deployment,
    postgres: PostgresServer,
    private_postgres: PostgresServer,
    redis: ValkeyServer,
    mails: MailSink,
    tmp_path: Path,
) -> None:
    """By the commands of the page: rows, rights, accounts and keys are the same, and waiting messages are sent."""
    create_app_role(postgres)
    grant_rights(postgres)
    with deployment.api() as api, httpx.Client(base_url=api.url) as client:
        token = log_in(client, ADMIN, PASSWORD)  # makes the signing keys
        # No relay runs, so the mail waits in the dump.
        assert client.post(f"{API}/register", json=GRACE).status_code == 202
        dump, create_roles, create, restore = SERVER_COMMANDS
        began = time.monotonic()
        run(dump, postgres, tmp_path)
        dumped = time.monotonic() - began
    before = rows(postgres)
    began = time.monotonic()
    run(create_roles, private_postgres, tmp_path)
    run(create, private_postgres, tmp_path)
    run(restore, private_postgres, tmp_path)
    restored = time.monotonic() - began
    assert rows(private_postgres) == before
    owners = "select distinct tableowner from pg_tables where schemaname in ('auth', 'platform', 'reporting')"
    assert private_postgres.execute(owners, DATABASE) == "tequipy_owner\n", "who has to change them at an upgrade"
    redis.flush()
    url = url_of(private_postgres, f"tequipy_app:{private_postgres.password}")
    second = Deployment(tmp_path, database_url=url, redis=redis, mails=mails)
    assert second.command("migrate", "current").count("(head)") == len(
        second.command("migrate", "current").splitlines()
    )
    second.command("migrate", "check")
    with second.api() as api, second.worker(), second.relay(), httpx.Client(base_url=api.url) as client:
        assert client.get(f"{API}/me", headers=token).json()["email"] == ADMIN, "the keys are those of the dump"
        assert client.get(f"{API}/me", headers=log_in(client, ADMIN, PASSWORD)).status_code == 200
        verify = mailed_token(mails, GRACE["email"], "verify-email")
        assert client.post(f"{API}/verify-email", json={"token": verify}).is_success
        assert client.get(f"{API}/me", headers=log_in(client, **GRACE)).json()["email"] == GRACE["email"]
        unsettled = "select count(*) from platform.outbox where settled_at is null"
        eventually("all messages are settled", lambda: private_postgres.execute(unsettled, DATABASE) == "0\n")
    tables, total = len(before), sum(int(each.split()[0]) for each in before.values())
    print(f"\nbackup: {tables} tables, {total} rows; dumped in {dumped:.1f} s, restored in {restored:.1f} s")
    assert total > 10


@pytest.mark.prove
@pytest.mark.quick
def test_the_password_of_the_database_is_rotated_by_a_second_role(
    deployment: Deployment, postgres: PostgresServer
) -> None:
    """A role that was granted the first one serves with its own password, after the first has none any more."""
    create_app_role(postgres)
    grant_rights(postgres)
    (create,) = re.findall(r"`(CREATE ROLE tequipy_app_2 [^`]+)`", README)
    (forget,) = re.findall(r"`(ALTER ROLE tequipy_app PASSWORD NULL)`", README)
    first, second = url_of(postgres, "tequipy_app:first"), url_of(postgres, "tequipy_app_2:second")
    with deployment.api(TEQUIPY_DATABASE__URL=first) as api, httpx.Client(base_url=api.url) as client:
        log_in(client, ADMIN, PASSWORD)
    postgres.execute(create.replace("…", "second"))
    postgres.execute(forget)
    with deployment.api(TEQUIPY_DATABASE__URL=second) as api, httpx.Client(base_url=api.url) as client:
        log_in(client, ADMIN, PASSWORD)
