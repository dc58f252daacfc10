"""Which sign-ins the owner of an account is told about."""

from collections.abc import Iterable
from typing import Final

from tequipy_auth.domain.entities import Session
from tequipy_auth.domain.value_objects import Client

_IPV6_PREFIX: Final = 48
"""The network of one site or subscriber (RFC 6177)."""


def address_range(client: Client) -> str:
    """Return the range of the client's address: a /24 of IPv4 or a /48 of IPv6; `unknown` without an address."""
    network = client.network(_IPV6_PREFIX)
    return f"{network.rpartition('.')[0]}.0/24" if "." in network else network


def is_new_range(client: Client, sessions: Iterable[Session]) -> bool:
    """Return whether no session was begun or last refreshed from the client's address range.

    Without a session there is nothing to compare with, and the range counts as known.
    """
    known = {
        address_range(each)
        for session in sessions
        for each in (session.client, session.last_client)
        if each is not None
    }
    return bool(known) and address_range(client) not in known
