"""Fixtures of the tests of the connection to Redis."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tequipy_devstack.servers import ValkeyServer


class ConfiguredServer(ValkeyServer):
    """A server with configuration lines that cannot be changed while it runs."""

    lines: tuple[str, ...] = ()

    def _command(self) -> list[str]:
        command = super()._command()
        with self._configuration.open("a") as configuration:
            configuration.write("".join(f"{line}\n" for line in self.lines))
        return command


@pytest.fixture
def configured() -> Iterator[Callable[..., ConfiguredServer]]:
    """Yield a function that starts a server with these lines."""
    with ExitStack() as stack:

        def configured(*lines: str) -> ConfiguredServer:
            server = ConfiguredServer(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tequipy-valkey-"))))
            server.lines = lines
            return stack.enter_context(server)

        yield configured
