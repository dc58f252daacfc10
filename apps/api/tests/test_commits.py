"""What each use case of auth and reporting costs PostgreSQL: one commit with changes, none for reading."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import Connection, Engine, event, text

from tequipy_auth import tasks as auth_tasks
from tequipy_platform import Delivery, Handler
from tequipy_platform.database import DatabaseSettings, build_database
from tequipy_platform.testing import CountingIds, RecordingMailer
from tequipy_reporting import tasks as reporting_tasks
from tequipy_reporting.wiring import build_writers

A, U, R = "/api/v1/auth", "/api/v1/users", "/api/v1/reports"
PASSWORD, NEW_PASSWORD = "correct horse battery staple", "another long horse battery"
ADMIN, ADA, EVE = "admin@example.com", "ada@example.com", "eve@example.com"

TWO_COMMITS: Final = {
    # The attempt is committed before the password is hashed, so that parallel guesses cannot exceed the limit; the
    # second commit has the result.
    f"POST {A}/login",
    f"POST {A}/reauthenticate",
    f"POST {A}/password/change",
    f"DELETE {A}/me",
    # The lease of the message is committed before a mail is sent or a report is written, so that no other worker does
    # the same meanwhile; the second commit has the result.
    "auth.send_mail",
    "reporting.send_weekly_mail",
    "reporting.generate_report",
}
"""Use cases whose changes must be visible before a slow step that is outside of transactions."""

PREFIXES: Final = (A, U, R, "/api/v1/roles", "/api/v1/audit-events", "/.well-known/")
"""How the paths of auth and reporting begin."""

TASKS: Final = (*auth_tasks.TASKS, *reporting_tasks.TASKS)
SUBSCRIBERS: Final = {name: [task.name for task in TASKS if name in task.on] for task in TASKS for name in task.on}


class Commits:
    """Counts transactions that were committed, and those of them with changes."""

    def __init__(self) -> None:
        self.all = self.changing = 0

    def committing(self, connection: Connection) -> None:
        """Ask PostgreSQL before a commit whether the transaction has changed anything."""
        self.all += 1
        changed = connection.exec_driver_sql("select pg_current_xact_id_if_assigned()::text").scalar()
        self.changing += changed is not None


@pytest.fixture
def commits() -> Iterator[Commits]:
    """Count the commits of all engines of this process."""
    counter = Commits()
    event.listen(Engine, "commit", counter.committing)
    yield counter
    event.remove(Engine, "commit", counter.committing)


class World:
    """The shipped app, whose calls and tasks are counted."""

    def __init__(self, app: FastAPI, client: httpx.AsyncClient, commits: Commits, database_url: str) -> None:
        self._app, self._client, self._commits = app, client, commits
        self.database_url = database_url
        self.counted: dict[str, list[tuple[int, int]]] = {}
        self._mailer = RecordingMailer()

    @contextmanager
    def counting(self, use_case: str) -> Iterator[None]:
        """Count the commits of a block."""
        every, changing = self._commits.all, self._commits.changing
        yield
        self.counted.setdefault(use_case, []).append((self._commits.all - every, self._commits.changing - changing))

    async def call(self, operation: str, body: Any = None, token: str | None = None, **path: str) -> httpx.Response:
        """Call a route, which must succeed, with an access token."""
        method, _, template = operation.partition(" ")
        parameters = path.pop("query", "")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._client.cookies.clear()
        with self.counting(operation):
            answer = await self._client.request(
                method, template.format(**path) + parameters, json=body, headers=headers
            )
        assert answer.is_success, (operation, answer.status_code, answer.text)
        return answer

    async def login(self, email: str, password: str = PASSWORD) -> dict[str, Any]:
        body = {"email": email, "password": password, "token_delivery": "body"}
        tokens: dict[str, Any] = (await self.call(f"POST {A}/login", body)).json()
        return tokens

    async def run(self, task: str, **payload: Any) -> None:
        """Run the handler of a task."""
        handlers = self._handlers()
        with self.counting(task):
            await handlers[task](Delivery(CountingIds()(), task), **payload)

    async def deliver(self) -> None:
        """Do the work of relay and worker for all messages, those of later messages included."""
        async with build_database(DatabaseSettings.model_validate({"url": self.database_url})) as database:
            while True:
                async with database.sessions.begin() as session:
                    statement = "update platform.outbox set published_at = now() where published_at is null returning *"
                    rows = (await session.execute(text(statement))).mappings().all()
                if not rows:
                    return
                handlers = self._handlers()
                for row in rows:
                    for task in [row["task"]] if row["task"] else SUBSCRIBERS[row["event"]]:
                        with self.counting(task):
                            await handlers[task](Delivery(row["id"], task), **row["payload"])

    def mailed(self, email: str, page: str) -> str:
        """Return the token of the newest link to a page of the frontend."""
        texts = [mail.text for mail in self._mailer.mails if mail.to == email]
        tokens = [token for text in texts for token in re.findall(rf"{page}#token=([\w.-]+)", text)]
        assert tokens, f"no mail to {email} with {page}"
        newest: str = tokens[-1]
        return newest

    def _handlers(self) -> Mapping[str, Handler]:
        auth, reporting = self._app.state.auth, self._app.state.reporting
        handlers = {
            **auth_tasks.build_handlers(auth, self._mailer),
            **reporting_tasks.build_handlers(reporting, build_writers(auth, reporting), self._mailer),
        }
        return {task.name: handler for task, handler in handlers.items()}


@pytest.fixture
async def world(app: FastAPI, client: httpx.AsyncClient, commits: Commits, database_url: str) -> World:
    await app.state.auth.registration.create_admin(email=ADMIN, password=PASSWORD)
    return World(app, client, commits, database_url)


async def walk_account(world: World, admin: str) -> None:
    """Call the routes of accounts, sessions, passwords and addresses."""
    call = world.call
    await call(f"POST {A}/register", {"email": ADA, "password": PASSWORD, "name": "Ada"})
    await world.deliver()
    await call(f"POST {A}/verify-email/resend", {"email": ADA})
    await world.deliver()
    await call(f"POST {A}/verify-email", {"token": world.mailed(ADA, "verify-email")})
    tokens = await world.login(ADA)
    await world.deliver()
    tokens = (await call(f"POST {A}/refresh", {"refresh_token": tokens["refresh_token"]})).json()
    ada = tokens["access_token"]
    me = (await call(f"GET {A}/me", token=ada)).json()
    await call(f"PATCH {A}/me", {"name": "Ada L."}, ada)
    await call(f"GET {A}/me/events", token=ada)
    await call(f"GET {A}/me/export", token=ada)
    await world.login(ADA)
    await world.deliver()  # a new device: a mail, by which the session can be ended
    await call(f"POST {A}/sessions/end", {"token": world.mailed(ADA, "end-session")})
    await world.login(ADA)
    sessions = (await call(f"GET {A}/sessions", token=ada)).json()["items"]
    other = next(each["id"] for each in sessions if not each["current"])
    await call(f"DELETE {A}/sessions/{{id}}", token=ada, id=other)
    await world.login(ADA)
    await call(f"POST {A}/logout-others", token=ada)
    tokens = (await call(f"POST {A}/reauthenticate", {"password": PASSWORD, "token_delivery": "body"}, ada)).json()
    ada = tokens["access_token"]
    body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    await call(f"POST {A}/password/change", body, ada)
    await call(f"POST {A}/email/change", {"new_email": "ada@example.org"}, ada)
    await world.deliver()
    await call(f"POST {A}/email/confirm", {"token": world.mailed("ada@example.org", "confirm-email")})
    await world.deliver()
    await call(f"POST {A}/email/undo", {"token": world.mailed(ADA, "undo-email")})
    await call(f"POST {A}/password/forgot", {"email": ADA})
    await world.deliver()
    body = {"token": world.mailed(ADA, "reset-password"), "new_password": PASSWORD}
    await call(f"POST {A}/password/reset", body)
    await call(f"POST {A}/logout", {"refresh_token": (await world.login(ADA))["refresh_token"]})
    await call(f"POST {A}/logout-all", token=(await world.login(ADA))["access_token"])
    await call(f"POST {U}/{{id}}/password-reset", token=admin, id=me["id"])
    await call(f"POST {U}/{{id}}/unlock", token=admin, id=me["id"])
    await call(f"DELETE {A}/me", {"password": PASSWORD}, (await world.login(ADA))["access_token"])
    await world.deliver()


async def walk_administration(world: World, admin: str) -> None:
    """Call the routes of administrators."""
    call = world.call
    await call(f"POST {U}/invitations", {"email": EVE}, admin)
    await call(f"POST {U}/invitations", {"email": "bob@example.com"}, admin)
    await world.deliver()
    invitations = (await call(f"GET {U}/invitations", token=admin)).json()["items"]
    bob = next(each["id"] for each in invitations if each["email"] != EVE)
    await call(f"DELETE {U}/invitations/{{id}}", token=admin, id=bob)
    token = world.mailed(EVE, "accept-invitation")
    await call(f"POST {A}/accept-invitation", {"token": token, "password": PASSWORD})
    users = (await call(f"GET {U}", token=admin)).json()["items"]
    eve = next(each["id"] for each in users if each["email"] == EVE)
    await call(f"GET {U}/{{id}}", token=admin, id=eve)
    await call(f"PUT {U}/{{id}}/roles", {"roles": ["support"]}, admin, id=eve)
    await call(f"DELETE {U}/{{id}}/sessions", token=admin, id=eve)
    await call(f"POST {U}/{{id}}/disable", token=admin, id=eve)
    await call(f"POST {U}/{{id}}/enable", token=admin, id=eve)
    await call("PUT /api/v1/roles/{name}", {"permissions": ["users:read"]}, admin, name="auditor")
    await call("GET /api/v1/roles", token=admin)
    await call("DELETE /api/v1/roles/{name}", token=admin, name="auditor")
    await call("GET /api/v1/audit-events", token=admin)
    await call("GET /.well-known/jwks.json")
    await world.deliver()


async def walk_reporting(world: World, admin: str) -> None:
    """Call the routes of reports."""
    call, today = world.call, datetime.now(UTC).date()
    days = {"from": f"{today - timedelta(days=2)}", "to": f"{today}"}
    report = (await call(f"POST {R}", {"kind": "user_activity", "format": "csv", **days}, admin)).json()["id"]
    await world.deliver()
    await call(f"GET {R}", token=admin)
    await call(f"GET {R}/{{id}}", token=admin, id=report)
    await call(f"GET {R}/{{id}}/content", token=admin, id=report)
    await call(f"GET {R}/daily-activity", token=admin, query=f"?from={days['from']}&to={days['to']}")
    await call(f"DELETE {R}/{{id}}", token=admin, id=report)
    await world.deliver()


async def walk_tasks(world: World) -> None:
    """Run the tasks that no message of the other walks has run, and those that follow them."""
    database = build_database(DatabaseSettings.model_validate({"url": world.database_url}))
    async with database, database.sessions.begin() as session:
        await session.execute(text("update auth.users set erase_at = now() where status = 'deleting'"))
    await world.run("reporting.weekly_mail")
    await world.run("auth.erase_accounts")
    await world.deliver()
    for task in TASKS:
        if task.name not in world.counted:
            await world.run(task.name)


async def test_each_use_case_commits_its_changes_once(app: FastAPI, world: World) -> None:
    """Each operation and task of auth and reporting commits changes once (`TWO_COMMITS`: twice), a GET never."""
    admin = (await world.login(ADMIN))["access_token"]
    world.counted.clear()  # the first login has made the first signing key
    await walk_account(world, admin)
    await walk_administration(world, admin)
    await walk_reporting(world, admin)
    await walk_tasks(world)
    served = {
        f"{method.upper()} {path}"
        for path, operations in app.openapi()["paths"].items()
        for method in operations
        if path.startswith(PREFIXES)
    }
    print("\ntransactions with changes, and all, of each use case:")
    for name, counts in world.counted.items():
        print(f"  {max(changing for _, changing in counts)} {max(every for every, _ in counts)}  {name}")
    assert set(world.counted) == served | {task.name for task in TASKS}
    for name, counts in world.counted.items():
        most = 0 if name.startswith("GET ") else 2 if name in TWO_COMMITS else 1
        assert max(changing for _, changing in counts) <= most, name
        if " " in name:  # an operation, whose call has really done something; a task may have had nothing to do
            assert max(changing for _, changing in counts) == most, name
