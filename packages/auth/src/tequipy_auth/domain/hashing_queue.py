"""The queue of password hashes: fair between client networks, with places reserved for marked clients."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final, Generic, TypeVar

from tequipy_auth.domain.hashing import HashingClient

T = TypeVar("T")

RESERVED_PART: Final = 4
"""One place in four is reserved for clients with a valid device mark, and so is one turn in four."""


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting(Generic[T]):
    item: T
    client: HashingClient
    arrival: int


class HashingQueue(Generic[T]):
    """Decides which hash is next and which one gives way; does no I/O and is not thread-safe.

    Networks take turns, each with its oldest hash. Every fourth turn goes to the marked clients, whose networks take
    turns likewise.

    Unmarked clients may use all places but the reserved quarter, and so may a single network. The marked may use every
    place. When there is none, a hash gives way: of the network that holds the most, the newest, unmarked before marked.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._unreserved = places - places // RESERVED_PART
        self._networks: dict[str, list[_Waiting[T]]] = {}  # the network whose turn is next comes first
        self._arrivals = count()
        self._turns = count(1)

    def __len__(self) -> int:
        return sum(map(len, self._networks.values()))

    def put(self, item: T, client: HashingClient) -> T | None:
        """Add an item; return the one that gives way, which may be the same, or None when there was a place."""
        new = _Waiting(item, client, next(self._arrivals))
        self._networks.setdefault(client.network, []).append(new)
        candidates = self._eviction_candidates(new)
        if not candidates:
            return None
        evicted = _newest_of_the_largest(candidates)
        self._drop(evicted)
        return evicted.item

    def take(self) -> T | None:
        """Remove and return the item whose turn it is, None when nothing waits."""
        waiting = self._all()
        if not waiting:
            return None
        marked = [each for each in waiting if each.client.trusted]
        chosen = marked[0] if marked and next(self._turns) % RESERVED_PART == 0 else waiting[0]
        self._drop(chosen)
        network = chosen.client.network
        if network in self._networks:  # its next turn comes after those of all others
            self._networks[network] = self._networks.pop(network)
        return chosen.item

    def remove(self, item: T) -> None:
        """Remove an item that may have been taken or have given way before."""
        for each in self._all():
            if each.item == item:
                self._drop(each)

    def _all(self) -> Sequence[_Waiting[T]]:
        return [each for waiting in self._networks.values() for each in waiting]

    def _eviction_candidates(self, new: _Waiting[T]) -> Collection[_Waiting[T]]:
        """Return those of whom one must give way for the new one, itself among them; none when there is a place."""
        own = self._networks[new.client.network]
        if len(own) > self._unreserved:
            return own
        waiting = self._all()
        unmarked = [each for each in waiting if not each.client.trusted]
        if not new.client.trusted and len(unmarked) > self._unreserved:
            return unmarked
        return waiting if len(waiting) > self._places else ()

    def _drop(self, waiting: _Waiting[T]) -> None:
        network = waiting.client.network
        self._networks[network].remove(waiting)
        if not self._networks[network]:
            del self._networks[network]


def _newest_of_the_largest(candidates: Collection[_Waiting[T]]) -> _Waiting[T]:
    """Return the hash that gives way; of networks that hold equally many, that of the network that came last."""
    held = Counter(each.client.network for each in candidates)
    most = max(held.values())
    network = max((each for each in candidates if held[each.client.network] == most), key=_arrival).client.network
    return max(
        (each for each in candidates if each.client.network == network),
        key=lambda each: (not each.client.trusted, each.arrival),
    )


def _arrival(waiting: _Waiting[T]) -> int:
    return waiting.arrival
