"""Free ports."""

import socket

from tequipy_devstack.ports import free_port, is_free


def test_a_port_is_free_until_somebody_listens() -> None:
    """A returned port is free, and no longer free while a server listens on it."""
    port = free_port()
    assert is_free(port)
    with socket.socket() as listener:
        # As in servers and `is_free`: an earlier test may have left connections in TIME_WAIT.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
        assert not is_free(port)
