"""A real worker process, and the rows and messages that tests give to it."""

import json
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from celery import Celery

from tequipy_devstack.processes import freeze_family, kill
from tequipy_devstack.proving.forked import ForkedCommand, ForkedProcess
from tequipy_devstack.servers import PostgresServer
from tequipy_platform.database import uuid7


@dataclass
class WorkerUnderTest:
    """A worker of the program beside this file, and the app that sends messages to it."""

    command: ForkedCommand
    broker_url: str
    folder: Path
    celery: Celery
    postgres: PostgresServer
    database_url: str
    processes: list[ForkedProcess] = field(default_factory=list)

    def start(self) -> ForkedProcess:
        process = self.command.start(
            *(self.broker_url, str(self.folder), self.database_url),
            environment=os.environ,
            folder=Path.cwd(),
            log=self.folder / "log",
            files=self.folder / f"process-{len(self.processes)}",
        )
        self.processes.append(process)
        return process

    def kill(self) -> None:
        """`kill -9` the worker and its children."""
        for process in self.processes:
            if process.poll() is None:
                kill(freeze_family(process.pid))
                process.wait()

    def stop(self) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            process.wait(15)

    def sql(self, statement: str) -> str:
        """Run a statement by psql, and return its rows."""
        return self.postgres.execute(statement, database=self.database_url.rpartition("/")[2].partition("?")[0])

    def add(self, task: str, payload: Mapping[str, Any] | None = None, **columns: str) -> str:
        """Insert a published row, and return its id; `columns` are SQL expressions."""
        row_id = str(uuid7())
        values = {
            "id": f"'{row_id}'",
            "task": f"'{task}'",
            "payload": f"'{json.dumps(payload or {})}'",
            "state": "'published'",
            "queue": "'default'",
            "created_at": "now()",
            "published_at": "now()",
        } | columns
        names = ", ".join(values)
        self.sql(f"insert into platform.outbox ({names}) values ({', '.join(values.values())})")  # noqa: S608 -- a test's own values
        return row_id

    def deliver(self, row_id: str, task: str) -> None:
        """Give the broker a message for a row."""
        self.celery.send_task(task, task_id=row_id, queue="default")

    def send(self, task: str, **payload: Any) -> str:
        """Insert a row, and give the broker its message."""
        row_id = self.add(task, payload)
        self.deliver(row_id, task)
        return row_id

    def row(self, row_id: str | UUID) -> dict[str, Any]:
        """Return a row of the outbox."""
        query = f"select to_json(o) from platform.outbox o where id = '{row_id}'"  # noqa: S608 -- as above
        row: dict[str, Any] = json.loads(self.sql(query))
        return row

    def change(self, row_id: str, assignments: str) -> None:
        """Update a row; `assignments` is SQL."""
        self.sql(f"update platform.outbox set {assignments} where id = '{row_id}'")  # noqa: S608 -- as above

    def attempts(self, row_id: str) -> list[dict[str, Any]]:
        """Return the failed attempts of a row."""
        query = f"select to_json(a) from platform.attempts a where message_id = '{row_id}' order by number"  # noqa: S608 -- as above
        return [json.loads(line) for line in self.sql(query).splitlines()]

    def until_state(self, row_id: str, *states: str, within: float = 30) -> dict[str, Any]:
        """Wait until a row has one of the states, and return it."""
        deadline = time.monotonic() + within
        while (row := self.row(row_id))["state"] not in states:
            assert time.monotonic() < deadline, (row, self.log())
            time.sleep(0.05)
        return row

    def publish_again(self, row_id: str) -> None:
        """Do what the relay does with a message that is due again."""
        row = self.until_state(row_id, "failed")
        self.change(row_id, "state = 'published', published_at = now()")
        self.deliver(row_id, row["task"])

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def events(self, event: str) -> list[dict[str, Any]]:
        file = self.folder / "events"
        lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        return [line for line in lines if line["event"] == event]

    def until(self, event: str, *, times: int = 1, within: float = 30) -> list[dict[str, Any]]:
        """Wait until an event has happened `times` times, and return all its occurrences."""
        deadline = time.monotonic() + within
        while len(self.events(event)) < times:
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)
        return self.events(event)
