"""Which addresses are global: the registries of IANA, what Python knows, and addresses inside others."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tequipy_platform.http.addresses import is_global

# The blocks of the IANA Special-Purpose Address Registries, with their column "Globally Reachable" (None: not
# applicable), and of further blocks that no host of the internet has.
REGISTRY = {
    "0.0.0.0/8": False,
    "10.0.0.0/8": False,
    "100.64.0.0/10": False,
    "127.0.0.0/8": False,
    "169.254.0.0/16": False,
    "172.16.0.0/12": False,
    "192.0.0.0/24": False,
    "192.0.0.0/29": False,
    "192.0.0.8/32": False,
    "192.0.0.170/31": False,
    "192.0.2.0/24": False,
    "192.88.99.0/24": None,
    "192.168.0.0/16": False,
    "198.18.0.0/15": False,
    "198.51.100.0/24": False,
    "203.0.113.0/24": False,
    "224.0.0.0/4": None,
    "240.0.0.0/4": False,
    "255.255.255.255/32": False,
    "192.31.196.0/24": True,
    "192.52.193.0/24": True,
    "192.175.48.0/24": True,
    "::1/128": False,
    "::/128": False,
    "::ffff:0:0/96": False,
    "64:ff9b:1::/48": False,
    "100::/64": False,
    "100:0:0:1::/64": False,
    "2001::/23": False,
    "2001::/32": None,
    "2001:2::/48": False,
    "2001:10::/28": None,
    "2001:db8::/32": False,
    "2002::/16": None,
    "2620:4f:8000::/48": True,
    "3fff::/20": False,
    "5f00::/16": False,
    "fc00::/7": False,
    "fe80::/10": False,
    "fec0::/10": None,
    "ff00::/8": None,
}
# Globally reachable by the registry, and refused all the same: anycast, which a server of the own network answers;
# addresses that are identifiers; and parts of 2001::/23 that no host has yet.
REFUSED_BESIDE = [
    "192.0.0.9/32",
    "192.0.0.10/32",
    "2001:1::1/128",
    "2001:1::2/128",
    "2001:1::3/128",
    "2001:3::/32",
    "2001:4:112::/48",
    "2001:20::/28",
    "2001:30::/28",
    "168.63.129.16/32",
]


@pytest.mark.parametrize(("block", "reachable"), REGISTRY.items())
def test_the_registries_of_iana_decide(block: str, reachable: bool | None) -> None:
    """The first and the last address of each block are global only if the registry says so."""
    network = ip_network(block)
    for address in (network[0], network[-1]):
        print(f"{address}: ipaddress says {address.is_global}, we say {is_global(str(address))}")
        assert is_global(str(address)) is (reachable is True)


@pytest.mark.parametrize("block", REFUSED_BESIDE)
def test_anycast_of_the_own_network_is_refused(block: str) -> None:
    """Addresses that the registry calls reachable, and that lead to the own network or to no host, are refused."""
    assert not is_global(str(ip_network(block)[0]))


@pytest.mark.parametrize("text", ["", "example.com", "127.1", "0x7f.1", "1.2.3.4%eth0", "::1%lo", "2130706433"])
def test_what_is_no_address_is_not_global(text: str) -> None:
    """A name or another form of an address is not global."""
    assert not is_global(text)


@given(st.ip_addresses())
def test_no_address_that_python_knows_as_not_global_is_global(address: IPv4Address | IPv6Address) -> None:
    """What the standard library knows to be private, local, multicast or reserved is refused."""
    if not address.is_global or address.is_multicast or address.is_link_local or address.is_loopback:
        assert not is_global(str(address))


@given(
    st.one_of(
        st.ip_addresses(v=4),
        *(st.ip_addresses(network=IPv4Network(block)) for block in REGISTRY if ":" not in block),
    )
)
def test_an_address_inside_another_is_judged(inner: IPv4Address) -> None:
    """An IPv4 address in a NAT64 address decides about it; mapped, compatible, 6to4 and Teredo ones are all refused."""
    nat64 = IPv6Address(int(IPv6Address("64:ff9b::")) + int(inner))
    assert is_global(str(nat64)) is is_global(str(inner))
    for prefix, shift in (("::ffff:0:0", 0), ("::", 0), ("64:ff9b:1::", 0), ("2002::", 80), ("2001::", 64)):
        assert not is_global(str(IPv6Address(int(IPv6Address(prefix)) | int(inner) << shift)))


@given(st.ip_addresses(v=6))
def test_ipv6_is_global_only_where_iana_allocates(address: IPv6Address) -> None:
    """Outside 2000::/3 only NAT64 addresses are global."""
    if address not in IPv6Network("2000::/3") and address not in IPv6Network("64:ff9b::/96"):
        assert not is_global(str(address))
