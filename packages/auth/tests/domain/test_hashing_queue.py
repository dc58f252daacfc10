"""The hashing queue: order, eviction, and invariants under any sequence of arrivals."""

from collections import Counter
from itertools import count

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tequipy_auth import Client, HashingClient
from tequipy_auth.domain.hashing import RESERVED_ONE_IN, HashingQueue

ATTACKER, ADA, BOB = (HashingClient(name) for name in ("192.0.2.1", "198.51.100.2", "203.0.113.3"))
MARKED_ATTACKER, MARKED_ADA, MARKED_BOB = (HashingClient(each.network, marked=True) for each in (ATTACKER, ADA, BOB))


def fill(queue: HashingQueue[str], client: HashingClient, number: int, name: str = "x") -> list[str | None]:
    return [queue.put(f"{name}{i}", client) for i in range(number)]


def drain(queue: HashingQueue[str]) -> list[str]:
    return list(iter(queue.take, None))


@pytest.mark.parametrize(
    ("ip", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:ff00::1", "2001:db8:1::/48"),
        ("2001:db8:1:1::ffff", "2001:db8:1::/48"),
        ("2001:db8:2::1", "2001:db8:2::/48"),
        ("fe80::1%eth0", "fe80::/48"),
        ("", "unknown"),
        (None, "unknown"),
        ("testclient", "unknown"),
    ],
)
def test_a_network_is_an_ipv4_address_or_an_ipv6_48(ip: str | None, network: str) -> None:
    """Addresses within one IPv6 /48, and all spellings of an IPv4 address, are one network."""
    assert HashingClient.of(Client(ip)) == HashingClient(network)
    assert HashingClient.of(Client(ip), marked=True) == HashingClient(network, marked=True)


def test_networks_take_turns() -> None:
    """The hash of a second network runs after one hash of the first, however many are waiting."""
    queue = HashingQueue[str](64)
    fill(queue, ATTACKER, 30, "attack")
    fill(queue, ADA, 2, "ada")
    fill(queue, BOB, 1, "bob")
    assert drain(queue)[:6] == ["attack0", "ada0", "bob0", "attack1", "ada1", "attack2"]


def test_a_network_that_comes_back_waits_for_the_others() -> None:
    """A network that was served and sends another hash does not overtake networks that are waiting."""
    queue = HashingQueue[str](64)
    fill(queue, ADA, 1, "ada")
    assert queue.take() == "ada0"
    fill(queue, BOB, 1, "bob")
    fill(queue, ADA, 1, "again")
    assert drain(queue) == ["bob0", "again0"]


@pytest.mark.parametrize("attacker", [ATTACKER, MARKED_ATTACKER])
def test_one_network_may_use_all_but_the_reserved_quarter(attacker: HashingClient) -> None:
    """While no other network waits, one network may use 48 of 64 places; its 49th hash is refused."""
    queue = HashingQueue[str](64)
    assert fill(queue, attacker, 50) == [None] * 48 + ["x48", "x49"]
    assert len(queue) == 48


def test_the_newest_hash_of_the_largest_network_is_evicted() -> None:
    """When all unreserved places are taken, new networks evict the attacker's newest hashes, never each other's."""
    queue = HashingQueue[str](64)
    fill(queue, ATTACKER, 48, "attack")
    assert [queue.put("ada", ADA), queue.put("bob", BOB)] == ["attack47", "attack46"]
    assert queue.put("more", ATTACKER) == "more"
    assert drain(queue)[:3] == ["attack0", "ada", "bob"]


def test_all_places_of_a_network_count() -> None:
    """A network with marked and unmarked hashes evicts none of a network that holds fewer places."""
    queue = HashingQueue[str](12)
    both = [HashingClient("192.0.2.1", marked=marked) for marked in (True, True, False, False)]
    for number, client in enumerate(both):
        queue.put(f"both{number}", client)
    other, third = (HashingClient(f"192.0.2.{each}", marked=False) for each in (2, 3))
    fill(queue, other, 4, "other")
    fill(queue, third, 3, "third")
    assert queue.put("one more", both[-1]) == "one more"


def test_networks_with_equal_shares_do_not_evict_each_other() -> None:
    """With one hash from each of 48 networks, the 49th network is refused."""
    queue = HashingQueue[str](64)
    for i in range(48):
        assert queue.put(f"x{i}", HashingClient(f"192.0.2.{i}")) is None
    assert queue.put("late", ADA) == "late"


def test_the_reserved_quarter_is_for_marked_clients() -> None:
    """While unmarked clients of 48 networks use every unreserved place, 16 marked clients get a place each."""
    queue = HashingQueue[str](64)
    for i in range(60):
        queue.put(f"x{i}", HashingClient(f"192.0.2.{i}"))
    marked = [queue.put(f"m{i}", HashingClient(f"198.51.100.{i}", marked=True)) for i in range(17)]
    assert marked == [None] * 16 + ["m16"]
    assert len(queue) == 64


def test_the_reserved_quarter_is_fair_too() -> None:
    """When all places are taken, a marked network with many hashes is evicted for another marked network."""
    queue = HashingQueue[str](64)
    for i in range(48):
        queue.put(f"x{i}", HashingClient(f"192.0.2.{i}"))
    fill(queue, MARKED_ADA, 16, "ada")
    assert queue.put("bob", MARKED_BOB) == "ada15"


def test_marked_clients_may_use_the_other_places_too() -> None:
    """40 marked clients behind one address get 40 places, not only the 16 reserved ones."""
    assert fill(HashingQueue[str](64), MARKED_ADA, 40) == [None] * 40


def test_unmarked_hashes_of_a_network_are_evicted_first() -> None:
    """When a network uses all its places, its marked client evicts its newest unmarked hash."""
    queue = HashingQueue[str](64)
    fill(queue, ATTACKER, 48, "attack")
    assert queue.put("owner", MARKED_ATTACKER) == "attack47"
    assert queue.put("more", ATTACKER) == "more"


def test_every_fourth_turn_goes_to_a_marked_client() -> None:
    """Marked clients run within four turns each, whatever the number of waiting unmarked networks."""
    queue = HashingQueue[str](64)
    for i in range(48):
        queue.put(f"x{i}", HashingClient(f"192.0.2.{i}"))
    queue.put("ada", MARKED_ADA)
    queue.put("bob", MARKED_BOB)
    order = drain(queue)
    assert order.index("ada") < RESERVED_ONE_IN
    assert order.index("bob") < 2 * RESERVED_ONE_IN


def test_a_removed_hash_frees_its_place() -> None:
    """A removed hash never runs, its place is free at once, and removing it again has no effect."""
    queue = HashingQueue[str](4)
    fill(queue, ATTACKER, 3)
    queue.remove("x1")
    queue.remove("x1")
    assert queue.put("y", ATTACKER) is None
    assert drain(queue) == ["x0", "x2", "y"]


@pytest.mark.parametrize("places", [0, 1, 3])
def test_a_queue_too_small_for_a_quarter_reserves_nothing(places: int) -> None:
    """A queue with fewer than four places reserves none."""
    assert fill(HashingQueue[str](places), ADA, 4) == [None] * places + [f"x{i}" for i in range(places, 4)]


NETWORKS = [f"192.0.2.{i}" for i in range(4)]
MOST_TURNS = len(NETWORKS) + len(NETWORKS) // (RESERVED_ONE_IN - 1)
"""One hash of each other network, and the turns of marked clients between them."""


class AnyTraffic(RuleBasedStateMachine):
    """Arrivals, removals and turns in any order, compared with a plain list of waiting items."""

    @initialize(places=st.integers(0, 12))
    def make(self, places: int) -> None:
        self.places = places
        self.unreserved = places - places // 4
        self.queue = HashingQueue[object](places)
        self.waiting: dict[object, tuple[HashingClient, int]] = {}
        self.arrivals = count()
        self.turns_waited: Counter[str] = Counter()

    def held(self) -> Counter[str]:
        return Counter(client.network for client, _ in self.waiting.values())

    def forget(self, item: object) -> tuple[HashingClient, int]:
        forgotten = self.waiting.pop(item)
        if not self.held()[forgotten[0].network]:
            del self.turns_waited[forgotten[0].network]
        return forgotten

    @rule(network=st.sampled_from(NETWORKS), marked=st.booleans())
    def arrive(self, network: str, marked: bool) -> None:
        client, item = HashingClient(network, marked), object()
        before = self.held()
        unmarked = sum(not each.marked for each, _ in self.waiting.values())
        has_place = (
            len(self.waiting) < self.places
            and before[network] < self.unreserved
            and (marked or unmarked < self.unreserved)
        )
        self.waiting[item] = client, next(self.arrivals)
        loser = self.queue.put(item, client)
        assert (loser is None) == has_place
        if loser is None:
            return
        lost, arrival = self.forget(loser)
        alike = [at for each, at in self.waiting.values() if each == lost]
        assert all(at < arrival for at in alike), "an older one gave way before a newer one of the same client"
        assert loser is item or before[lost.network] > before[network] or lost.network == network
        assert lost.marked is False or marked or len(self.waiting) - unmarked > self.places // 4

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from(list(self.waiting)))
        self.queue.remove(item)
        self.forget(item)

    @rule()
    def serve(self) -> None:
        item = self.queue.take()
        assert (item is None) == (not self.waiting)
        if item is None:
            return
        client, arrival = self.forget(item)
        assert all(at > arrival for each, at in self.waiting.values() if each == client), "not in order of arrival"
        self.turns_waited.update(self.held().keys())
        self.turns_waited[client.network] = 0
        assert max(self.turns_waited.values(), default=0) <= MOST_TURNS

    @invariant()
    def no_network_fills_the_queue(self) -> None:
        """The queue never exceeds its places, nor unmarked clients or one network three quarters of them."""
        assert len(self.queue) == len(self.waiting) <= self.places
        assert sum(not client.marked for client, _ in self.waiting.values()) <= self.unreserved
        assert max(self.held().values(), default=0) <= self.unreserved


AnyTraffic.TestCase.settings = settings(max_examples=200, stateful_step_count=60)
TestAnyTraffic = AnyTraffic.TestCase
