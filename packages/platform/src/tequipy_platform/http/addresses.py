"""Lookups of hosts, and connections to global addresses alone for those that users give (CWE-918)."""

import asyncio
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

import httpcore2

from tequipy_platform.http.connecting import Connecting, connect_to_first
from tequipy_platform.http.errors import AddressRefused
from tequipy_platform.http.lookups import Lookups

_NOT_GLOBAL_IPV4: Final = tuple(
    IPv4Network(network)
    for network in (
        # The IANA IPv4 Special-Purpose Address Registry, without the few blocks that it lists as globally reachable.
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # shared address space of providers (CGNAT); 100.100.100.200 is a metadata service
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local; 169.254.169.254 is the metadata service of most clouds
        "172.16.0.0/12",
        # With 192.0.0.9 and 192.0.0.10, which are anycast: they lead to a server of the own network.
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",  # 6to4 relays, deprecated
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "240.0.0.0/4",  # reserved, and the broadcast address
        # Not in that registry:
        "224.0.0.0/4",  # multicast
        "168.63.129.16/32",  # looks public, and is the host of each virtual machine in Azure
    )
)
_GLOBAL_IPV6: Final = IPv6Network("2000::/3")
"""The only block of IPv6 of which IANA allocates global unicast addresses."""
_NOT_GLOBAL_IPV6: Final = tuple(
    IPv6Network(network)
    for network in (
        # The parts of it that are in the IANA IPv6 Special-Purpose Address Registry.
        "2001::/23",  # protocol assignments: Teredo, which contains an IPv4 address, benchmarking, ORCHID, anycast
        "2001:db8::/32",
        "2002::/16",  # 6to4, which contains an IPv4 address
        "3fff::/20",
    )
)
_NAT64: Final = IPv6Network("64:ff9b::/96")
"""Translated to the IPv4 address in its last 32 bits (RFC 6052); networks without IPv4 reach IPv4 hosts by it."""


def is_global(text: str) -> bool:
    """Return whether an IP address belongs to a host in the internet.

    `is_global` of the module ipaddress is not used: which ranges it knows depends on the patch release of Python, it
    counts multicast as global, and it does not look into addresses that contain another one.
    """
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        if address in _NAT64:
            address = IPv4Address(address.packed[-4:])
        else:
            # This refuses IPv4-mapped addresses too.
            return address in _GLOBAL_IPV6 and not any(address in network for network in _NOT_GLOBAL_IPV6)
    return not any(address in network for network in _NOT_GLOBAL_IPV4)


class LookedUpAddresses(httpcore2.AsyncNetworkBackend):
    """Looks a host up once for each connection, and connects to one of its addresses."""

    def __init__(self) -> None:
        self._network = httpcore2.AnyIOBackend()
        self._lookups = Lookups()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 -- the signature of httpcore2
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to the first address of `host` that accepts."""
        time = asyncio.get_running_loop().time
        deadline = None if timeout is None else time() + timeout
        addresses = await self._lookups.look_up(host, port, deadline)
        self._check(addresses)

        def connect(address: str) -> Connecting:
            rest = None if deadline is None else deadline - time()
            return self._network.connect_tcp(
                address, port, timeout=rest, local_address=local_address, socket_options=socket_options
            )

        return await connect_to_first(addresses, connect)

    def _check(self, addresses: list[str]) -> None:
        """Raise an error if a host with these addresses must not be connected to."""


class GlobalAddresses(LookedUpAddresses):
    """Connects only if all addresses of a host are global; raises `AddressRefused`."""

    def _check(self, addresses: list[str]) -> None:
        # One that is not global is enough: no name of the internet has such an address for a good reason.
        if not all(is_global(address) for address in addresses):
            raise AddressRefused("The host has an address that is not global.")
