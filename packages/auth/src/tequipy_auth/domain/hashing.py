"""The client on whose behalf a password is hashed, which the fair hashing queue uses to share its places."""

from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Final, Self

from tequipy_auth.domain.value_objects import Client

_IPV6_PREFIX: Final = 48
"""Prefix length of the largest block that one customer usually gets (RFC 6177).

Clients are counted by this prefix, so that a customer gains nothing from having many addresses.
"""


@dataclass(frozen=True, slots=True)
class HashingClient:
    """The client network of a hash, and whether the client has a valid device mark."""

    network: str
    trusted: bool = False

    @classmethod
    def of(cls, client: Client, *, trusted: bool = False) -> Self:
        """Return the hashing client of a request; `trusted` says that its device mark is valid."""
        return cls(hashing_network(client.ip), trusted)


def hashing_network(ip: str | None) -> str:
    """Return the client network: the IPv4 address or the IPv6 /48, "unknown" for anything else."""
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
