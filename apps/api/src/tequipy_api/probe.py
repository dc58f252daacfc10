"""`tequipy-api health`: whether the API of this machine answers. It imports the standard library only.

A container's health check runs it every few seconds, so it must not take the time that importing the app takes.
"""

import socket
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

READY_OPTION: Final = "--ready"
PORT_OPTION: Final = "--port"
DEFAULT_PORT: Final = 8000
_SECONDS: Final = 3.0
"""The limit of connecting, and of each read; readiness answers within 2 s."""


def is_probe(arguments: Sequence[str]) -> bool:
    """Return whether `main` understands these arguments; click handles and reports others."""
    match [argument for argument in arguments if argument != READY_OPTION]:
        case []:
            return True
        case [option, port]:
            return option == PORT_OPTION and port.isdecimal() and int(port) > 0
    return False


def main(arguments: Sequence[str]) -> NoReturn:
    """End the process with status 0 if the API answers 200, and with 1 and one line otherwise."""
    port = int(arguments[arguments.index(PORT_OPTION) + 1]) if PORT_OPTION in arguments else DEFAULT_PORT
    fault = find_fault(port, ready=READY_OPTION in arguments)
    if fault:
        sys.stderr.write(f"{fault}\n")
    sys.exit(1 if fault else 0)


def find_fault(port: int, *, ready: bool = False) -> str | None:
    """Return what is wrong with the API at a port of 127.0.0.1, or None; with `ready`, whether it can serve."""
    path = "/api/v1/readiness" if ready else "/api/v1/health"
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=_SECONDS) as connection:
            connection.sendall(request.encode("ascii"))
            with connection.makefile("rb") as response:
                status_line = response.readline(1024).decode("latin-1")
    except (OSError, OverflowError) as error:
        return f"127.0.0.1:{port} does not answer: {error}"
    _, _, status = status_line.partition(" ")
    return None if status.startswith("200 ") else f"{path}: {status.strip() or 'no response'}"
