"""Free TCP ports of the loopback interface."""

import random
import socket

# Below Linux's ephemeral ports (from 32768 on), so that an outgoing connection cannot take the port of a killed server
# before the server is started again.
_RANGE = range(20_000, 32_000)


def is_free(port: int) -> bool:
    """Return whether a server could listen on this port of 127.0.0.1 now."""
    with socket.socket() as probe:
        # Set like in servers, so that closed connections in TIME_WAIT do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port(count: int = 1) -> int:
    """Return a free port, the first of `count` in a row; at random, so that concurrent callers rarely get the same."""
    ports = random.SystemRandom()
    while True:
        port = ports.choice(_RANGE)
        if all(is_free(port + offset) for offset in range(count)):
            return port
