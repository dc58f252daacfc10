"""`tequipy-worker messages` and `dead-letters`: what they print and change, and a repair with real processes."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import click
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from tequipy_devstack.proving import eventually
from tequipy_devstack.servers import PostgresServer
from tequipy_platform.database import uuid7
from tequipy_worker.cli import main
from tequipy_worker.message_commands import Age, _text

Run = Callable[..., Result]
TOKEN = f"ev1.{'a' * 22}.{'b' * 43}"


class Outbox:
    """Rows of the outbox by psql."""

    def __init__(self, server: PostgresServer, database_url: str) -> None:
        self._server = server
        self._name = database_url.rpartition("/")[2].partition("?")[0]

    def sql(self, statement: str) -> str:
        return self._server.execute(statement, database=self._name)

    def add(self, task: str, state: str = "dead", **columns: str) -> str:
        row_id = str(uuid7())
        settled = {"settled_at": "now()"} if state in {"dead", "done"} else {}
        values = {"id": f"'{row_id}'", "task": f"'{task}'", "payload": "'{}'", "state": f"'{state}'"}
        values |= {"created_at": "now()"} | settled | columns
        self.sql(f"insert into platform.outbox ({', '.join(values)}) values ({', '.join(values.values())})")  # noqa: S608 -- a test's own values
        return row_id

    def state(self, row_id: str) -> str:
        return self.sql(f"select state from platform.outbox where id = '{row_id}'").strip()  # noqa: S608 -- as above


@pytest.fixture
def outbox(postgres_server: PostgresServer, database_url: str) -> Outbox:
    return Outbox(postgres_server, database_url)


@pytest.fixture
def command(environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs `tequipy-worker` in this process."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("TEQUIPY_")]:
        monkeypatch.delenv(name)
    variables = environment | {"TEQUIPY_CELERY__BROKER_URL": "redis://127.0.0.1:1/1"}

    def run(*arguments: str, **settings: str) -> Result:
        changed = {f"TEQUIPY_{name}": value for name, value in settings.items()}
        return CliRunner().invoke(main, arguments, env=variables | changed)

    return run


def test_messages_are_listed_as_a_table_and_as_json(command: Run, outbox: Outbox) -> None:
    """A list has one line per message without payloads; `--limit` says when there are more."""
    mail = outbox.add("auth.send_mail", "pending", correlation_id="'abc'", payload="""'{"to": "a@example.com"}'""")
    dead = outbox.add("auth.purge", error="'LookupError: gone'", attempts="7")
    table = command("messages")
    assert table.exit_code == 0, table.output
    head, first, second = table.stdout.splitlines()
    assert head.split() == ["ID", "STATE", "TASK", "OR", "EVENT", "QUEUE", "CREATED", "(UTC)", "ATTEMPTS", "ERROR"]
    assert first.split()[:3] == [dead, "dead", "auth.purge"]
    assert re.search(r"  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d  7         LookupError: gone$", first)
    assert second.split()[:4] == [mail, "pending", "auth.send_mail", "email"]
    (line,) = command("messages", "--correlation-id", "abc", "--json").stdout.splitlines()
    row = json.loads(line)
    assert (row["id"], row["state"], row["queue"], row["error"]) == (mail, "pending", "email", None)
    assert "a@example.com" not in table.output + line
    limited = command("messages", "--limit", "1")
    assert len(limited.stdout.splitlines()) == 2
    assert "more than --limit 1" in limited.stderr
    assert command("dead-letters", "list", "--task", "auth.purge").stdout.splitlines()[1].split()[0] == dead


@pytest.mark.parametrize("group", ["messages", "dead-letters"])
def test_one_message_is_shown_without_secrets(command: Run, outbox: Outbox, group: str) -> None:
    """`show` prints state, times, attempts, and on request the payload; secrets are redacted as in logs."""
    payload = json.dumps({"to": "a@example.com", "token": "hunter2", "link": f"https://x/{TOKEN}"})
    row_id = outbox.add("auth.send_mail", payload=f"'{payload}'", error=f"'SMTPError: {TOKEN} password=hunter2'")
    outbox.sql(
        "insert into platform.attempts (message_id, number, started_at, worker, error) "  # noqa: S608 -- as above
        f"values ('{row_id}', 1, now(), 'host:1', 'SMTPError: password=hunter2')"
    )
    plain, full = command(group, "show", row_id), command(group, "show", row_id, "--payload", "--json")
    assert (plain.exit_code, full.exit_code) == (0, 0), plain.output + full.output
    assert "a@example.com" not in plain.output
    assert "SMTPError: [redacted] password=[redacted]" in plain.stdout
    assert plain.stdout.splitlines()[-1].split()[0] == "1"
    shown = json.loads(full.stdout)
    assert shown["payload"] == {"to": "a@example.com", "token": "[redacted]", "link": "https://x/[redacted]"}
    assert (shown["state"], shown["history"][0]["worker"]) == ("dead", "host:1")
    for output in (plain.output, full.output, command("messages").output, command("messages", "--json").output):
        assert "hunter2" not in output
        assert TOKEN not in output


def test_an_unknown_message_is_one_line(command: Run) -> None:
    """`show` of an id that is not in the outbox ends with status 1 and says so."""
    row_id = str(uuid4())
    result = command("messages", "show", row_id)
    assert (result.exit_code, result.stderr) == (1, f"Error: There is no message {row_id}.\n")


@pytest.mark.parametrize(
    ("action", "done_word", "state"), [("retry", "retried", "pending"), ("discard", "discarded", "discarded")]
)
def test_dead_letters_are_repaired_by_selectors(
    command: Run, outbox: Outbox, action: str, done_word: str, state: str
) -> None:
    """The command changes what its selectors name, prints the counts, and ends with 1 when nothing matches."""
    first, second = outbox.add("auth.purge"), outbox.add("auth.purge", correlation_id="'abc'")
    other, done = outbox.add("auth.send_mail", settled_at="now() - interval '2 days'"), outbox.add("auth.purge", "done")
    by_id = command("dead-letters", action, first, done)
    assert by_id.exit_code == 0
    assert by_id.stdout == f"{done_word} 1: auth.purge 1\n"
    assert by_id.stderr == "1 of the given ids are no dead letters\n"
    again = command("dead-letters", action, first)
    assert (again.exit_code, again.stdout) == (1, "")
    assert again.stderr == f"Error: no dead letter was {done_word}: none matches\n"
    assert command("dead-letters", action, "--correlation-id", "abc").exit_code == 0
    aged = command("dead-letters", action, "--older-than", "1d", "--newer-than", "3d", "--json")
    assert json.loads(aged.stdout)["tasks"] == {"auth.send_mail": 1}
    assert [outbox.state(row) for row in (first, second, other, done)] == [state, state, state, "done"]
    assert command("dead-letters", action, "--all").exit_code == 1


def test_foreign_messages_are_only_discarded(command: Run, outbox: Outbox) -> None:
    """A retry leaves dead letters that are not from the outbox, and says so."""
    foreign, ours = outbox.add("tequipy.foreign"), outbox.add("auth.purge")
    result = command("dead-letters", "retry", "--all")
    assert (result.exit_code, result.stdout) == (0, "retried 1: auth.purge 1\n")
    assert "tequipy.foreign" in result.stderr
    alone = command("dead-letters", "retry", foreign)
    assert (alone.exit_code, alone.stdout) == (1, "")
    assert [outbox.state(row) for row in (foreign, ours)] == ["dead", "pending"]
    assert command("dead-letters", "discard", foreign).exit_code == 0
    assert outbox.state(foreign) == "discarded"


@pytest.mark.parametrize("action", ["retry", "discard"])
@pytest.mark.parametrize("selectors", [[], ["--all", "--task", "auth.purge"], [str(uuid4()), "--all"]])
def test_a_repair_needs_one_kind_of_selector(command: Run, outbox: Outbox, action: str, selectors: list[str]) -> None:
    """Without a selector, or with contradictory ones, nothing changes, and the status is 2."""
    row_id = outbox.add("auth.purge")
    assert command("dead-letters", action, *selectors).exit_code == 2
    assert outbox.state(row_id) == "dead"


def test_a_database_that_is_away_is_one_line(command: Run, free_port: Callable[[], int]) -> None:
    """If the database cannot be reached, the command ends with one line and no traceback."""
    result = command("messages", DATABASE__URL=f"postgresql+asyncpg://app:hunter2@127.0.0.1:{free_port()}/app")
    assert result.exit_code == 1
    assert len(result.output.splitlines()) == 1
    assert "hunter2" not in result.output


@given(st.text())
def test_no_text_controls_the_terminal(text: str) -> None:
    """Whatever an error contains, its cell is one line of printable characters."""
    assert "".join(_text(text)).isprintable()


@given(st.integers(0, 999_999), st.sampled_from("smhd"))
def test_an_age_is_a_number_with_a_unit(number: int, unit: str) -> None:
    """Each unit has its length, and anything else is refused."""
    seconds = number * {"s": 1, "m": 60, "h": 3600, "d": 86400}[unit]
    assert Age().convert(f"{number}{unit}", None, None) == timedelta(seconds=seconds)
    for wrong in (f"-{number}{unit}", f"{number}", f"{number}{unit} ", f"{number}w", f"{number}.5h"):
        with pytest.raises(click.BadParameter):
            Age().convert(wrong, None, None)


def test_a_dead_letter_is_retried_with_real_processes(
    chain: Callable[[str], None], environment: dict[str, str], redis_url: str, outbox: Outbox, tmp_path: Path
) -> None:
    """A task that always fails becomes a dead letter; once its fault is mended, `dead-letters retry` gets it done."""

    def run(*arguments: str) -> str:
        variables = environment | {"TEQUIPY_CELERY__BROKER_URL": redis_url}
        command: list[str | Path] = [Path(sys.executable).with_name("tequipy-worker"), *arguments]
        result = subprocess.run(
            command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=True, timeout=60
        )
        return result.stdout

    chain(redis_url)
    row_id = outbox.add("chain.mend", "pending", correlation_id="'mend-1'")
    eventually("the message is a dead letter", lambda: outbox.state(row_id) == "dead", every=0.2)
    (listed,) = run("dead-letters", "list", "--correlation-id", "mend-1", "--json").splitlines()
    assert (json.loads(listed)["id"], json.loads(listed)["error"]) == (row_id, "RuntimeError: not mended yet")
    assert [each["number"] for each in json.loads(run("messages", "show", row_id, "--json"))["history"]] == [1, 2, 3]
    (tmp_path / "mended").touch()
    assert run("dead-letters", "retry", row_id) == "retried 1: chain.mend 1\n"
    eventually("the message is done", lambda: outbox.state(row_id) == "done", every=0.2)
    history = json.loads(run("messages", "show", str(UUID(row_id)), "--json"))["history"]
    assert [(each["number"], each["error"]) for each in history] == [
        *((number, "RuntimeError: not mended yet") for number in (1, 2, 3)),
        (4, None),
    ]
