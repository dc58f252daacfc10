"""Free ports."""

import socket

from tequipy_devstack.ports import free_port, is_free


def test_a_port_is_free_until_somebody_listens() -> None:
    """A returned port is free, and no longer free while a server listens on it."""
    port = free_port()
    assert is_free(port)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))
        listener.listen()
        assert not is_free(port)
