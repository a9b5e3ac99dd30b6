"""Names that programs and tests use without importing them, as judges of contests provide them."""

import builtins
import importlib
from collections.abc import Collection
from contextlib import suppress
from functools import cache
from types import CodeType
from typing import Any

_MODULES = (
    "bisect collections copy datetime decimal fractions functools heapq itertools json math operator os random re "
    "statistics string sys time typing"
)
# Earlier lines come first; a module's own name comes before all of them.
_NAMES_OF_MODULE = {
    "collections": "ChainMap Counter OrderedDict defaultdict deque namedtuple",
    "typing": (
        "Any Callable DefaultDict Deque Dict FrozenSet Generator Generic Iterable Iterator List Literal Mapping "
        "NamedTuple Optional Sequence Set Tuple Type TypeVar Union"
    ),
    "heapq": "heapify heappop heappush heappushpop heapreplace merge nlargest nsmallest",
    "bisect": "bisect_left bisect_right insort insort_left insort_right",
    "functools": "cache cached_property cmp_to_key lru_cache partial reduce total_ordering wraps",
    "itertools": (
        "accumulate chain combinations combinations_with_replacement compress count cycle dropwhile filterfalse "
        "groupby islice pairwise permutations product repeat starmap takewhile tee zip_longest"
    ),
    "math": (
        "acos asin atan atan2 ceil comb cos degrees dist exp fabs factorial floor fmod gcd hypot inf isclose isnan "
        "isqrt lcm log log10 log2 nan perm pi prod radians sin sqrt tan trunc"
    ),
    "operator": "add and_ attrgetter itemgetter lt mul or_ sub xor",
    "string": "ascii_letters ascii_lowercase ascii_uppercase digits punctuation",
    "random": "choice randint randrange sample shuffle uniform",
    "copy": "deepcopy",
    "dataclasses": "dataclass field",
    "datetime": "date timedelta",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "enum": "Enum IntEnum auto",
    "abc": "ABC abstractmethod",
    "io": "BytesIO StringIO",
    "sortedcontainers": "SortedDict SortedList SortedSet",
}
# What tests may mean by a name that they do not define: never what an answer may well define itself.
NAMES_OF_TESTS = frozenset(
    f"{_MODULES} {_NAMES_OF_MODULE['collections']} {_NAMES_OF_MODULE['typing']} Decimal Fraction deepcopy inf nan "
    "timedelta".split()
)
NODES = """
class ListNode:
    def __init__(self, val=0, next=None):
        self.val = val
        self.next = next


class TreeNode:
    def __init__(self, val=0, left=None, right=None):
        self.val = val
        self.left = left
        self.right = right
"""
NODE_HELPERS = (
    NODES
    + """

def list_node(values):
    head = None
    for value in reversed(values):
        head = ListNode(value, head)
    return head


def is_same_list(one, other):
    while one is not None and other is not None:
        if one.val != other.val:
            return False
        one, other = one.next, other.next
    return one is other


def tree_node(values):
    if not values:
        return None
    values = iter(values)
    root = TreeNode(next(values))
    waiting = [root]
    for node in waiting:
        for side in ("left", "right"):
            value = next(values, None)
            if value is not None:
                setattr(node, side, TreeNode(value))
                waiting.append(getattr(node, side))
    return root


def is_same_tree(one, other):
    pairs = [(one, other)]
    while pairs:
        one, other = pairs.pop()
        if one is None or other is None:
            if one is not other:
                return False
        elif one.val != other.val:
            return False
        else:
            pairs += [(one.left, other.left), (one.right, other.right)]
    return True
"""
)
NODE_NAMES = frozenset({"ListNode", "TreeNode"})
NODE_HELPER_NAMES = NODE_NAMES | {"list_node", "is_same_list", "tree_node", "is_same_tree"}


# The module of each name, "" for a module itself; made before any fork.
_SOURCE_OF_NAME = {
    **{name: module for module, names in _NAMES_OF_MODULE.items() for name in names.split()},
    **dict.fromkeys(_MODULES.split(), ""),
}


def usual_value(name: str) -> Any:
    """What the name usually means. Raises LookupError if nothing, or if what it means is not installed."""
    module = _SOURCE_OF_NAME[name]
    try:
        return getattr(importlib.import_module(module), name) if module else importlib.import_module(name)
    except ImportError as error:
        raise LookupError(str(error)) from None


def add_usual_names(mentioned: Collection[str]) -> None:
    """Makes the usual names that a program mentions builtins: what it defines or imports itself comes before them."""
    for name in mentioned:  # never all usual names: to look through those, a child would copy 50 pages
        if name in _SOURCE_OF_NAME and name not in builtins.__dict__:
            with suppress(LookupError):
                setattr(builtins, name, usual_value(name))
    for name in NODE_NAMES.intersection(mentioned):
        setattr(builtins, name, usual_nodes()[name])


@cache
def usual_nodes() -> dict[str, Any]:
    """The classes of linked nodes, of a program that defines none."""
    nodes: dict[str, Any] = {"__name__": "nodes"}
    exec(NODES, nodes)  # noqa: S102 - a constant
    return {name: nodes[name] for name in NODE_NAMES}


def names_in(code: CodeType) -> set[str]:
    """The globals and attributes that the code mentions."""
    codes, names = [code], set(code.co_names)
    for part in codes:  # grows meanwhile
        for constant in part.co_consts:
            if isinstance(constant, CodeType):
                codes.append(constant)
                names.update(constant.co_names)
    return names
