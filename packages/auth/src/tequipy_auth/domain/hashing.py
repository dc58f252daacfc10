"""The fair queue of password hashes, and the client networks between which it shares its places."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final, Generic, Self, TypeVar

from tequipy_auth.domain.value_objects import Client

T = TypeVar("T")

RESERVED_ONE_IN: Final = 4
"""One place in four, and one turn in four, is reserved for clients with a valid device mark."""

_IPV6_PREFIX: Final = 48
"""Prefix length of the largest block that one customer usually gets (RFC 6177).

Clients are counted by this prefix, so that a customer gains nothing from having many addresses.
"""


@dataclass(frozen=True, slots=True)
class HashingClient:
    """The client network of a hash, and whether the client has a valid device mark."""

    network: str
    marked: bool = False

    @classmethod
    def of(cls, client: Client, *, marked: bool = False) -> Self:
        """Return the hashing client of a request; `marked` says whether it sent a valid device mark."""
        return cls(client.network(_IPV6_PREFIX), marked)


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting(Generic[T]):
    item: T
    client: HashingClient
    arrival: int


class HashingQueue(Generic[T]):
    """Decides which hash runs next and which one is evicted; performs no I/O and is not thread-safe.

    The networks take turns, and each turn runs the oldest hash of its network. Every fourth turn belongs to clients
    with a device mark, whose networks take turns likewise.

    A single network, and all clients without a mark together, may use three quarters of the places; clients with a mark
    may use every place. If no place is free, one hash is evicted: the newest one of the network that holds the most
    places, hashes without a mark first.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._unreserved = places - places // RESERVED_ONE_IN
        self._networks: dict[str, list[_Waiting[T]]] = {}  # ordered by turn: the first network is next
        self._arrivals = count()
        self._turns = count(1)

    def __len__(self) -> int:
        return sum(map(len, self._networks.values()))

    def put(self, item: T, client: HashingClient) -> T | None:
        """Add an item and return the evicted one, which may be the new item itself; return None if a place was free."""
        new = _Waiting(item, client, next(self._arrivals))
        self._networks.setdefault(client.network, []).append(new)
        candidates = self._eviction_candidates(new)
        if not candidates:
            return None
        evicted = self._newest_of_the_largest(candidates)
        self._drop(evicted)
        return evicted.item

    def take(self) -> T | None:
        """Remove and return the item whose turn it is, or None if the queue is empty."""
        waiting = self._all()
        if not waiting:
            return None
        marked = [each for each in waiting if each.client.marked]
        chosen = marked[0] if marked and next(self._turns) % RESERVED_ONE_IN == 0 else waiting[0]
        self._drop(chosen)
        network = chosen.client.network
        if network in self._networks:  # its next turn comes after those of all other networks
            self._networks[network] = self._networks.pop(network)
        return chosen.item

    def remove(self, item: T) -> None:
        """Remove an item; do nothing if it was taken or evicted before."""
        for each in self._all():
            if each.item == item:
                self._drop(each)

    def _all(self) -> Sequence[_Waiting[T]]:
        return [each for waiting in self._networks.values() for each in waiting]

    def _eviction_candidates(self, new: _Waiting[T]) -> Collection[_Waiting[T]]:
        """Return the items of which one must be evicted, including the new one; empty if a place is free."""
        own = self._networks[new.client.network]
        if len(own) > self._unreserved:
            return own
        waiting = self._all()
        unmarked = [each for each in waiting if not each.client.marked]
        if not new.client.marked and len(unmarked) > self._unreserved:
            return unmarked
        return waiting if len(waiting) > self._places else ()

    def _newest_of_the_largest(self, candidates: Collection[_Waiting[T]]) -> _Waiting[T]:
        """Return the item to evict; if several networks hold the most places, use the network with the latest arrival.

        All places of a network count, also those of its hashes that are no candidates.
        """
        held = {network: len(waiting) for network, waiting in self._networks.items()}
        most = max(held[each.client.network] for each in candidates)
        of_the_largest = [each for each in candidates if held[each.client.network] == most]
        network = max(of_the_largest, key=lambda each: each.arrival).client.network
        return max(
            (each for each in candidates if each.client.network == network),
            key=lambda each: (not each.client.marked, each.arrival),
        )

    def _drop(self, waiting: _Waiting[T]) -> None:
        network = waiting.client.network
        self._networks[network].remove(waiting)
        if not self._networks[network]:
            del self._networks[network]
