"""Free TCP ports of the loopback interface."""

import random
import socket

# Below Linux's ephemeral range (from 32768 on): a port that a killed server left cannot be taken by somebody's outgoing
# connection before the server is back.
_RANGE = range(20_000, 32_000)


def is_free(port: int) -> bool:
    """Tell whether a server could listen on 127.0.0.1 at this port now."""
    with socket.socket() as probe:
        # As servers do: connections that linger after their end (TIME_WAIT) are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """Return a port that is free now, drawn at random so that two who ask at once hardly get the same."""
    ports = random.SystemRandom()
    while not is_free(port := ports.choice(_RANGE)):
        pass
    return port
