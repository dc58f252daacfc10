"""The app on databases with unusual defaults."""

import asyncio
import os
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import make_url

from tequipy_api.app import create_app
from tequipy_api.settings import ApiSettings
from tequipy_devstack.servers import PostgresServer
from tequipy_devstack.tables import create_tables

Command = Callable[..., subprocess.CompletedProcess[str]]
PASSWORD = "correct horse battery staple"
AUTH = "/api/v1/auth"


@pytest.fixture
def serializable_url(postgres_server: PostgresServer, empty_database_url: str) -> str:
    create_tables(empty_database_url)
    name = make_url(empty_database_url).database
    postgres_server.execute(f'alter database "{name}" set default_transaction_isolation = serializable')
    postgres_server.execute(f"alter database \"{name}\" set TimeZone = 'America/St_Johns'")
    return empty_database_url


async def test_a_default_of_serializable_changes_nothing(
    settings: ApiSettings, serializable_url: str, postgres_server: PostgresServer
) -> None:
    """Twelve concurrent logins to different accounts succeed although the database's default is SERIALIZABLE."""
    values = settings.model_dump()
    values["database"]["url"] = serializable_url
    values["auth"]["registration_mode"] = "open"
    values["rate_limits"] = {"default": "off", "register": "off", "login": "off"}
    app = create_app(ApiSettings.model_validate(values))
    accounts = [{"email": f"user{number}@example.com", "password": PASSWORD} for number in range(12)]
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://app.example.com") as client,
    ):
        for account in accounts:
            assert (await client.post(f"{AUTH}/register", json=account)).status_code == 201
        postgres_server.execute(
            "update auth.users set email_verified = true", make_url(serializable_url).database or ""
        )
        logins = [client.post(f"{AUTH}/login", json=account | {"token_delivery": "body"}) for account in accounts]
        answers = await asyncio.gather(*logins)
    assert Counter(answer.status_code for answer in answers) == {200: 12}


@pytest.fixture
def latin_url(postgres_server: PostgresServer) -> Iterator[str]:
    name = f"latin_{uuid4().hex}"
    postgres_server.execute(
        f"create database {name} encoding 'LATIN1' locale_provider libc locale 'C' template template0"
    )
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


async def test_readiness_refuses_another_encoding(
    settings: ApiSettings, latin_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under any server the app is not ready on a database that cannot store every text, even with its tables."""
    with monkeypatch.context() as patched:
        patched.setattr("tequipy_platform.database.migrations.runner.check_encoding", lambda _: None, raising=False)
        await asyncio.to_thread(create_tables, latin_url)
    values = settings.model_dump()
    values["database"]["url"] = latin_url
    app = create_app(ApiSettings.model_validate(values))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://app.example.com") as client,
    ):
        answer = await client.get("/api/v1/readiness")
    assert answer.status_code == 503
    assert answer.json()["checks"]["database"]["status"] == "down"


@pytest.mark.parametrize(
    "command", [["serve"], ["create-admin", "--email", "ada@example.com"], ["keys", "list"]], ids=lambda words: words[0]
)
def test_another_encoding_ends_a_command_at_once(run_command: Command, latin_url: str, command: list[str]) -> None:
    """Status 78 and one line with the setting, the encoding and advice."""
    result = run_command(*command, stdin=PASSWORD, TEQUIPY_DATABASE__URL=latin_url)
    assert (result.returncode, result.stdout) == (os.EX_CONFIG, ""), result.stderr
    assert result.stderr.splitlines() == [
        "TEQUIPY_DATABASE__URL: the database's encoding is LATIN1: create it with ENCODING 'UTF8' TEMPLATE template0"
    ], result.stderr


def test_a_migration_refuses_another_encoding(run_command: Command, latin_url: str) -> None:
    """The migration fails and creates nothing."""
    result = run_command("migrate", "upgrade", TEQUIPY_DATABASE__URL=latin_url)
    assert result.returncode == 1
    assert "encoding is LATIN1" in result.stderr
