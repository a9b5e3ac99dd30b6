"""The radix tree against a plain list of what was cached."""

import random

import pytest

from services.rollout.engines.embedded.radix import RadixNode, RadixTree


def words(rng: random.Random, count: int) -> list[tuple[int, ...]]:
    """Sequences that share many prefixes."""
    return [tuple(rng.randrange(3) for _ in range(rng.randrange(1, 12))) for _ in range(count)]


class Pool:
    """What a user of the tree keeps in the slots: the prefix up to each token, so that a wrong slot shows."""

    def __init__(self, num_slots: int) -> None:
        self.tree = RadixTree(num_slots)
        self.content: dict[int, tuple[int, ...]] = {}

    def insert(self, word: tuple[int, ...]) -> tuple[RadixNode, int]:
        node, start, slots = self.tree.insert(word)
        for end, slot in enumerate(slots, start + 1):
            self.content[slot] = word[:end]
        return node, start + len(slots)

    def cached(self, word: tuple[int, ...]) -> int:
        _, slots = self.tree.match(word)
        assert [self.content[slot] for slot in slots] == [word[:end] for end in range(1, len(slots) + 1)]
        return len(slots)


def shared(word: tuple[int, ...], other: tuple[int, ...]) -> int:
    length = 0
    while length < min(len(word), len(other)) and word[length] == other[length]:
        length += 1
    return length


@pytest.mark.parametrize("seed", range(20))
def test_with_room_for_all_the_longest_shared_prefix_is_found(seed: int) -> None:
    rng = random.Random(seed)
    pool, inserted = Pool(1000), []
    for word in words(rng, 60):
        assert pool.cached(word) == max((shared(word, other) for other in inserted), default=0)
        _, length = pool.insert(word)
        assert length == len(word)
        inserted.append(word)
    distinct = {word[:end] for word in inserted for end in range(1, len(word) + 1)}
    assert pool.tree.num_cached == len(distinct)


@pytest.mark.parametrize("seed", range(20))
def test_what_is_found_is_right_and_the_bound_holds_under_eviction(seed: int) -> None:
    rng = random.Random(seed)
    pool = Pool(17)
    for word in words(rng, 300):
        pool.cached(rng.choice(words(rng, 1)))
        _, length = pool.insert(word)
        assert pool.cached(word) == length
        assert pool.tree.num_cached <= 17
    assert pool.tree.num_evicted > 0


@pytest.mark.parametrize("seed", range(10))
def test_what_is_pinned_stays_and_what_is_unpinned_can_go(seed: int) -> None:
    rng = random.Random(seed)
    pool = Pool(25)
    pinned: list[tuple[tuple[int, ...], RadixNode, int]] = []
    for word in words(rng, 200):
        node, length = pool.insert(word)
        if len(pinned) < 3:
            pool.tree.pin(node)
            pinned.append((word, node, length))
        for kept, _, kept_length in pinned:
            assert pool.cached(kept) >= kept_length
        if rng.random() < 0.1 and pinned:
            _, node, _ = pinned.pop(rng.randrange(len(pinned)))
            pool.tree.unpin(node)
    for _, node, _ in pinned:
        pool.tree.unpin(node)
    _, length = pool.insert(tuple(range(100, 125)))
    assert length == 25
    assert pool.tree.num_cached == 25


def test_the_least_recently_used_leaf_goes_first() -> None:
    pool = Pool(6)
    for word in ((1, 1), (2, 2), (3, 3)):
        pool.insert(word)
    pool.cached((1, 1))
    pool.insert((4, 4))
    assert [pool.cached((i, i)) for i in (1, 2, 3, 4)] == [2, 0, 2, 2]


def test_a_sequence_longer_than_the_pool_is_cached_as_far_as_it_fits() -> None:
    pool = Pool(4)
    assert pool.insert((1, 2, 3, 4, 5, 6))[1] == 4
    assert pool.cached((1, 2, 3, 4, 5, 6)) == 4


def test_nodes_held_from_before_a_clear_can_still_be_unpinned() -> None:
    pool = Pool(8)
    node, _ = pool.insert((1, 2, 3))
    pool.tree.pin(node)
    pool.tree.clear()
    pool.tree.unpin(node)
    assert pool.tree.num_cached == 0
    assert pool.insert((1, 2, 3))[1] == 3


def test_without_slots_nothing_is_cached() -> None:
    pool = Pool(0)
    assert pool.insert((1, 2))[1] == 0
    assert pool.cached((1, 2)) == 0
