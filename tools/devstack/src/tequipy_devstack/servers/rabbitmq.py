"""RabbitMQ as a child process, from the Debian package rabbitmq-server."""

import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from signal import Signals
from typing import ClassVar
from urllib.parse import quote

import psutil

from tequipy_devstack.ports import free_port
from tequipy_devstack.processes import DevstackError, family, make_private_folder
from tequipy_devstack.servers.base import Server

_FOLDER = "/usr/lib/rabbitmq/bin"
_HEADER = b"AMQP\x00\x00\x09\x01"


class RabbitmqServer(Server):
    """A RabbitMQ node with a user of its own; all its ports are on the loopback interface.

    It takes some seconds to start. Its port mapper (epmd) is its child, so that it ends with it.
    """

    name = "RabbitMQ"
    stop_signal = Signals.SIGTERM
    death_signal = Signals.SIGTERM

    user: ClassVar[str] = "tequipy"

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        super().__init__(folder, durable=durable)
        self._port_mapper = free_port()

    @staticmethod
    def is_installed() -> bool:
        """Return whether this machine has the package."""
        return Path(_FOLDER, "rabbitmq-server").exists()

    def url(self, virtual_host: str = "/") -> str:
        """Return the URL of a virtual host; there is `/` at first."""
        return f"amqp://{self.user}:{self.password}@127.0.0.1:{self.port}/{quote(virtual_host, safe='')}"

    def control(self, *arguments: str) -> str:
        """Run `rabbitmqctl` and return its output; raises `DevstackError` with its message."""
        command = ["env", *self._variables(), f"{_FOLDER}/rabbitmqctl", "--quiet", *arguments]
        result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 -- our own command
        if result.returncode:
            raise DevstackError(f"rabbitmqctl: {result.stdout.strip()} {result.stderr.strip()}")
        return result.stdout

    def stop(self) -> None:
        """Stop the server and its port mapper, which does not end by itself."""
        for process in family(self.pid) if self.running else ():
            with suppress(psutil.NoSuchProcess):
                if process.name() == "epmd":
                    process.terminate()
        super().stop()

    def _prepare(self) -> None:
        if not self.is_installed():
            raise DevstackError("RabbitMQ is not installed: apt-get install --no-install-recommends rabbitmq-server")
        if not self.data.exists():
            make_private_folder(self.data)

    def _command(self) -> list[str]:
        configuration, plugins = self.folder / "rabbitmq.conf", self.folder / "plugins"
        configuration.touch(mode=0o600)
        configuration.write_text(
            f"""listeners.tcp.local = 127.0.0.1:{self.port}
default_user = {self.user}
default_pass = {self.password}
loopback_users = none
disk_free_limit.absolute = 1MB
log.console.level = warning
"""
        )
        plugins.write_text("[].\n")
        # epmd would otherwise be started as a daemon, which outlives the server.
        script = f"epmd & exec {_FOLDER}/rabbitmq-server -noinput"
        variables = self._variables(
            RABBITMQ_CONFIG_FILE=configuration,
            RABBITMQ_ENABLED_PLUGINS_FILE=plugins,
            RABBITMQ_MNESIA_BASE=self.data / "mnesia",
            RABBITMQ_LOG_BASE=self.data / "log",
            RABBITMQ_LOGS="-",
            RABBITMQ_DIST_PORT=free_port(),
            RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +S 2:2",
            RABBITMQ_ALLOW_INPUT="1",  # makes the script replace itself by the server
        )
        return ["env", *variables, "sh", "-c", script]

    def _variables(self, **further: object) -> list[str]:
        common = {
            "HOME": self.data,  # of the Erlang cookie
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_NODENAME": f"tequipy-{self.port}@localhost",
            "ERL_EPMD_PORT": self._port_mapper,
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }
        return [f"{name}={value}" for name, value in (common | further).items()]

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
            connection.sendall(_HEADER)
            return connection.recv(1) == b"\x01"  # a method frame: connection.start
        return False
