"""On whose behalf a password is hashed: what the queue of the hashing threads shares its places by."""

from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Final, Self

from tequipy_auth.domain.value_objects import Client

_IPV6_PREFIX: Final = 48
"""The largest block that one customer is usually given (RFC 6177): none gets more shares by having more addresses."""


@dataclass(frozen=True, slots=True)
class HashingClient:
    """Who waits for a hash: the network that its fair share is counted by, and whether it has a valid device mark."""

    network: str
    trusted: bool = False

    @classmethod
    def of(cls, client: Client, *, trusted: bool = False) -> Self:
        """Return the hashing client of a request; `trusted` when its device mark was recognised."""
        return cls(hashing_network(client.ip), trusted)


def hashing_network(ip: str | None) -> str:
    """Return the network of a client: its IPv4 address or IPv6 /48, "unknown" for anything else."""
    try:
        address = ip_address(ip or "")
    except ValueError:
        return "unknown"
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    host_bits = 128 - _IPV6_PREFIX
    return f"{IPv6Address(int(address) >> host_bits << host_bits)}/{_IPV6_PREFIX}"
