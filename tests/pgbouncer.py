"""A real pgbouncer in transaction mode, from Debian's package."""

import shutil
from pathlib import Path
from signal import Signals

from tequipy_devstack.processes import make_private_folder
from tequipy_devstack.servers import PostgresServer

PGBOUNCER = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin")


class Pgbouncer(PostgresServer):
    """A pgbouncer with two server connections for all clients, each lent for one transaction."""

    name = "pgbouncer"
    stop_signal = Signals.SIGTERM

    def __init__(self, folder: Path, target: PostgresServer) -> None:
        super().__init__(folder)
        self._target = target

    def _prepare(self) -> None:
        make_private_folder(self.data)
        (self.data / "users").write_text(f'"postgres" "{self._target.password}"\n')
        (self.data / "pgbouncer.ini").write_text(
            f"""[databases]
* = host=127.0.0.1 port={self._target.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self.port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {self.data}/users
admin_users = postgres
pool_mode = transaction
default_pool_size = 2
"""
        )

    @property
    def password(self) -> str:
        return self._target.password

    def _command(self) -> list[str]:
        return [str(PGBOUNCER), str(self.data / "pgbouncer.ini")]
