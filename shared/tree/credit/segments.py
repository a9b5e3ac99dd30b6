"""A tree from fork to fork: steps between two forks have the same trajectories, and are one segment."""

from shared.tree.node import Tree


def segment_starts(tree: Tree) -> tuple[int, ...]:
    """Of every node, the fork, or the root, below which its segment begins; of the root, itself."""
    starts = [0]
    for parent in tree.parents[1:]:
        is_fork = len(tree.nodes[parent].children) > 1
        starts.append(parent if is_fork else starts[parent])
    return tuple(starts)


def segment_ends(tree: Tree) -> tuple[int, ...]:
    """Of every node, the fork or leaf at which its segment ends; a fork and a leaf end their own."""
    ends = list(range(len(tree.nodes)))
    for node_id in range(len(ends) - 1, -1, -1):
        children = tree.nodes[node_id].children
        if len(children) == 1:
            ends[node_id] = ends[children[0]]
    return tuple(ends)
