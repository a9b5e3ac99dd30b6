"""Chooses so many of a stream, the same ones whenever it comes again."""

import heapq
from hashlib import blake2b
from typing import Generic, TypeVar

Item = TypeVar("Item")


class BottomSample(Generic[Item]):
    """A uniform sample of `size` items: those whose hashes are smallest. It depends on names and seed alone."""

    def __init__(self, size: int, seed: int = 0) -> None:
        self._size = size
        self._seed = seed
        self._heap: list[tuple[int, int, Item]] = []
        self.num_offered = 0

    def offer(self, name: str, item: Item) -> None:
        digest = blake2b(f"{self._seed}\0{name}".encode("utf-8", "replace"), digest_size=8).digest()
        entry = (-int.from_bytes(digest, "big"), -self.num_offered, item)
        self.num_offered += 1
        if len(self._heap) < self._size:
            heapq.heappush(self._heap, entry)
        else:
            heapq.heappushpop(self._heap, entry)

    def items(self) -> list[Item]:
        """In the order in which they came."""
        return [item for _, _, item in sorted(self._heap, key=lambda entry: -entry[1])]
