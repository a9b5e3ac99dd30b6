"""A radix tree over token ids: which prefixes are cached, and in which slots of a bounded pool."""

import heapq
from collections.abc import Sequence


class RadixNode:
    """A run of tokens (`key`) below its parent, with the pool slot of each; `pins` counts the users of prefixes
    through it."""

    __slots__ = ("children", "key", "last_used", "parent", "pins", "slots")

    def __init__(self, key: tuple[int, ...], slots: list[int], parent: "RadixNode | None") -> None:
        self.key = key
        self.slots = slots
        self.parent = parent
        self.children: dict[int, RadixNode] = {}
        self.pins = 0
        self.last_used = 0


class RadixTree:
    """Assigns slots to prefixes. When they run out, it evicts unpinned leaves, least recently used first.

    It holds no tensors: the caller of `insert` fills the slots before the next `match`.
    """

    def __init__(self, num_slots: int) -> None:
        self.num_slots = num_slots
        self.num_evicted = 0
        self.clear()

    def clear(self) -> None:
        """Forgets all prefixes. Nodes from before may still be unpinned."""
        self._root = RadixNode((), [], None)
        self._free = list(range(self.num_slots))
        self._clock = 0

    @property
    def num_cached(self) -> int:
        return self.num_slots - len(self._free)

    def match(self, token_ids: tuple[int, ...]) -> tuple[RadixNode, list[int]]:
        """The longest cached prefix: the node that ends it, and its slots in order."""
        node, length = self._descend(token_ids)
        slots: list[int] = []
        for ancestor in reversed(self._path(node)):
            slots += ancestor.slots
        return node, slots[:length]

    def insert(self, token_ids: tuple[int, ...]) -> tuple[RadixNode, int, list[int]]:
        """Caches as much of `token_ids` as fits: the node that ends it, where new tokens start, and their slots."""
        node, start = self._descend(token_ids)
        self.pin(node)
        slots = self._allocate(len(token_ids) - start)
        self.unpin(node)
        if slots:
            child = RadixNode(token_ids[start : start + len(slots)], slots, node)
            child.last_used = self._clock
            node.children[token_ids[start]] = child
            node = child
        return node, start, slots

    def pin(self, node: RadixNode) -> None:
        """Keeps the prefix that ends in `node` from being evicted."""
        for ancestor in self._path(node):
            ancestor.pins += 1

    def unpin(self, node: RadixNode) -> None:
        for ancestor in self._path(node):
            ancestor.pins -= 1

    def _path(self, node: RadixNode) -> list[RadixNode]:
        """From `node` up to the root."""
        path = [node]
        while (parent := path[-1].parent) is not None:
            path.append(parent)
        return path

    def _descend(self, token_ids: tuple[int, ...]) -> tuple[RadixNode, int]:
        """Follows `token_ids` as far as it is cached, splits the last edge there, and marks the path as used now."""
        self._clock += 1
        node, depth = self._root, 0
        node.last_used = self._clock
        while depth < len(token_ids) and (child := node.children.get(token_ids[depth])) is not None:
            shared = _shared_length(child.key, token_ids, depth)
            if shared < len(child.key):
                child = _split(node, child, shared)
            child.last_used = self._clock
            node, depth = child, depth + shared
        return node, depth

    def _allocate(self, num_wanted: int) -> list[int]:
        """Up to `num_wanted` slots, after evictions if needed; adjacent ones stay together, since runs copy faster."""
        if num_wanted > len(self._free):
            self._evict(num_wanted - len(self._free))
        first = max(len(self._free) - num_wanted, 0)
        slots = self._free[first:]
        del self._free[first:]
        return slots

    def _evict(self, num_wanted: int) -> None:
        """Removes unpinned leaves until `num_wanted` slots are free or no such leaf is left."""
        leaves = [(node.last_used, id(node), node) for node in self._leaves()]
        heapq.heapify(leaves)
        num_freed = 0
        while leaves and num_freed < num_wanted:
            _, _, node = heapq.heappop(leaves)
            parent = node.parent
            if parent is None or node.pins:
                continue
            num_freed += len(node.slots)
            self._free += node.slots
            del parent.children[node.key[0]]
            if not parent.children:
                heapq.heappush(leaves, (parent.last_used, id(parent), parent))
        self.num_evicted += num_freed

    def _leaves(self) -> list[RadixNode]:
        leaves, stack = [], [self._root]
        while stack:
            node = stack.pop()
            stack += node.children.values()
            if not node.children:
                leaves.append(node)
        return leaves


def _split(parent: RadixNode, node: RadixNode, length: int) -> RadixNode:
    """Moves the first `length` tokens of `node` into a new node between it and `parent`, and returns that."""
    upper = RadixNode(node.key[:length], node.slots[:length], parent)
    upper.pins, upper.last_used = node.pins, node.last_used
    upper.children[node.key[length]] = node
    parent.children[node.key[0]] = upper
    node.key, node.slots, node.parent = node.key[length:], node.slots[length:], upper
    return upper


def _shared_length(key: Sequence[int], token_ids: Sequence[int], depth: int) -> int:
    """How many tokens of `key` match `token_ids` from `depth` on."""
    if key == token_ids[depth : depth + len(key)]:
        return len(key)
    length = 0
    for cached, wanted in zip(key, token_ids[depth:], strict=False):
        if cached != wanted:
            break
        length += 1
    return length
