"""Renamed schemas: both apps in a database in which another product owns `auth`, `platform` and `reporting`."""

import subprocess
from pathlib import Path

import httpx
import pytest

from tequipy_devstack.mail_sink import MailSink
from tequipy_devstack.proving import Deployment, eventually
from tequipy_devstack.proving.apps import program
from tequipy_devstack.servers import PostgresServer, ValkeyServer

from .accounts import mailed_token
from .reports import requested_report

API = "/api/v1/auth"
GOOD = {"email": "ada@example.com", "password": "correct horse battery staple"}
FOREIGN = (
    "create schema auth; create table auth.users (theirs int);"
    "create schema platform; create view platform.outbox as select 1 as theirs;"
    "create schema reporting; create table reporting.reports (theirs int)"
)
OURS = ("auth", "platform", "reporting")
THEIRS = f"select relname, relfilenode from pg_class where relnamespace::regnamespace::text in {OURS}"  # noqa: S608
SCHEMAS = {f"TEQUIPY_DATABASE__SCHEMAS__{name.upper()}": f"shop_{name}" for name in OURS}
DATABASE = "shared"


@pytest.fixture
def deployment(postgres: PostgresServer, redis: ValkeyServer, mails: MailSink, tmp_path: Path) -> Deployment:
    url = postgres.create_database(DATABASE)
    postgres.execute(FOREIGN, DATABASE)
    return Deployment(tmp_path, database_url=url, redis=redis, mails=mails, **SCHEMAS)


def command(deployment: Deployment, *arguments: str, without: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    environment = {name: text for name, text in deployment.environment.items() if name not in without}
    return subprocess.run(
        [program("tequipy-api"), *arguments],
        env=environment,
        cwd=deployment.folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.prove
@pytest.mark.quick
def test_the_journey_in_renamed_schemas(deployment: Deployment, postgres: PostgresServer, mails: MailSink) -> None:
    """Without the setting every command refuses the foreign schemas; with it, everything is in our own schemas."""
    before = postgres.execute(THEIRS, DATABASE)
    refused = command(deployment, "migrate", "upgrade", without=tuple(SCHEMAS))
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "schema platform belongs to another product" in refused.stderr
    assert "(TEQUIPY_DATABASE__SCHEMAS)" in refused.stderr
    deployment.migrate()
    assert command(deployment, "migrate", "check").returncode == 0
    deployment.create_admin()
    with deployment.api() as api, deployment.worker(), deployment.relay(), httpx.Client(base_url=api.url) as client:
        assert client.post(f"{API}/register", json=GOOD).status_code == 202
        token = mailed_token(mails, GOOD["email"], "verify-email")
        assert client.post(f"{API}/verify-email", json={"token": token}).is_success
        login = client.post(f"{API}/login", json=GOOD | {"token_delivery": "body"}).raise_for_status().json()
        bearer = {"Authorization": f"Bearer {login['access_token']}"}
        assert client.get(f"{API}/me", headers=bearer).json()["email"] == GOOD["email"]
        body = {"refresh_token": login["refresh_token"]}
        assert client.post(f"{API}/refresh", json=body).is_success
        assert client.post(f"{API}/password/forgot", json={"email": GOOD["email"]}).status_code == 202
        token = mailed_token(mails, GOOD["email"], "reset-password")
        reset = {"token": token, "new_password": "another long horse battery"}
        assert client.post(f"{API}/password/reset", json=reset).is_success
        assert client.get(f"{API}/me", headers=bearer).status_code == 401
        assert b"login_ok" in requested_report(client)
        unsettled = "select count(*) from shop_platform.outbox where settled_at is null"
        eventually("every message is settled", lambda: postgres.execute(unsettled, DATABASE) == "0\n")
    keys = command(deployment, "keys", "list")
    assert keys.returncode == 0, keys.stderr
    assert "active" in keys.stdout
    assert int(postgres.execute("select count(*) from shop_auth.audit_events", DATABASE)) > 4
    assert postgres.execute(THEIRS, DATABASE) == before
