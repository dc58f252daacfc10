"""The database roles of docs/security.md: both apps, migrations and commands work with exactly these rights."""

import re
from pathlib import Path

import httpx
import pytest

from tequipy_devstack.mail_sink import MailSink
from tequipy_devstack.processes import DevstackError
from tequipy_devstack.proving import Deployment, eventually
from tequipy_devstack.servers import PostgresServer, ValkeyServer

from .accounts import mailed_token
from .reports import requested_report

PAGE = (Path(__file__).parents[1] / "docs/security.md").read_text()
ONCE, AFTER_MIGRATING = re.findall(r"```sql\n(.*?)```", PAGE, flags=re.DOTALL)
API = "/api/v1/auth"
GOOD = {"email": "ada@example.com", "password": "correct horse battery staple"}
DATABASE = "roles"

REFUSED = [
    "create table auth.theirs (id int)",
    "create schema theirs",
    "create table public.theirs (id int)",
    "drop table auth.login_attempts",
    "alter table auth.audit_events disable trigger all",
    "drop trigger append_only on auth.audit_events",
    "update auth.audit_events set reason = 'changed'",
    "delete from auth.audit_events",
    "truncate auth.audit_events",
    "truncate auth.users cascade",
    "set session_replication_role = replica",
    "create or replace function auth.refuse_audit_change() returns trigger language sql as 'select null'",
    "delete from auth.signing_keys",
    "update auth.alembic_version set version_num = '0001'",
    "delete from platform.alembic_version",
    "delete from reporting.alembic_version",
    "drop table reporting.reports",
    "set role tequipy_owner",
]


def deployment_of(
    role: str, folder: Path, postgres: PostgresServer, redis: ValkeyServer, mails: MailSink
) -> Deployment:
    folder.mkdir()
    url = f"postgresql+asyncpg://{role}:{role}-password@127.0.0.1:{postgres.port}/{DATABASE}"
    return Deployment(folder, database_url=url, redis=redis, mails=mails)


def refusal(postgres: PostgresServer, statement: str) -> str:
    """Return PostgreSQL's error for a statement run by the apps' role, or an empty text if it succeeds."""
    try:
        # A session of the role itself, because a superuser's session with SET ROLE could switch back.
        postgres.execute(f"set session authorization tequipy_app; {statement}", DATABASE)
    except DevstackError as error:
        return str(error)
    return ""


@pytest.mark.prove
@pytest.mark.quick
def test_the_journey_with_the_least_rights(
    postgres: PostgresServer, redis: ValkeyServer, mails: MailSink, tmp_path: Path
) -> None:
    """The owner migrates; the other role can do all that the apps do, and none of the forbidden statements."""
    postgres.create_database(DATABASE)
    postgres.execute(ONCE, DATABASE)
    for role in ("tequipy_owner", "tequipy_app"):
        postgres.execute(f"alter role {role} password '{role}-password'")
    owner = deployment_of("tequipy_owner", tmp_path / "owner", postgres, redis, mails)
    app = deployment_of("tequipy_app", tmp_path / "app", postgres, redis, mails)
    for _ in range(2):  # the second run has nothing to do
        owner.migrate()
        postgres.execute(f"set role tequipy_owner; {AFTER_MIGRATING}", DATABASE)
    app.create_admin()
    with app.api() as api, app.worker(), app.relay(), httpx.Client(base_url=api.url, timeout=30) as client:
        assert client.get("/api/v1/readiness").json()["status"] == "ready"
        assert client.post(f"{API}/register", json=GOOD).status_code == 202
        token = mailed_token(mails, GOOD["email"], "verify-email")
        assert client.post(f"{API}/verify-email", json={"token": token}).is_success
        login = client.post(f"{API}/login", json=GOOD | {"token_delivery": "body"}).raise_for_status().json()
        bearer = {"Authorization": f"Bearer {login['access_token']}"}
        assert client.patch(f"{API}/me", json={"name": "Ada"}, headers=bearer).json()["name"] == "Ada"
        body = {"refresh_token": login["refresh_token"]}
        assert client.post(f"{API}/refresh", json=body).is_success
        assert client.post(f"{API}/login", json=GOOD | {"password": "wrong"}).status_code == 401
        assert client.get(f"{API}/sessions", headers=bearer).is_success
        assert client.post(f"{API}/password/forgot", json={"email": GOOD["email"]}).status_code == 202
        token = mailed_token(mails, GOOD["email"], "reset-password")
        reset = {"token": token, "new_password": "another long horse battery"}
        assert client.post(f"{API}/password/reset", json=reset).is_success
        assert b"login_ok" in requested_report(client)
        unsettled = "select count(*) from platform.outbox where settled_at is null"
        eventually("every message is settled", lambda: postgres.execute(unsettled, DATABASE) == "0\n")
    kids = [line.split()[0] for line in app.command("keys", "list").splitlines()]
    app.command("keys", "reseal")
    app.command("keys", "revoke", kids[0])
    purged = "select auth.purge_audit_events(now() - interval '400 days', 10)"
    assert postgres.execute(f"set role tequipy_app; {purged}", DATABASE) == "0\n"
    answers = {statement: refusal(postgres, statement) for statement in REFUSED}
    expected = re.compile("permission denied|must be (owner|able)")
    assert {statement: answer for statement, answer in answers.items() if not expected.search(answer)} == {}
