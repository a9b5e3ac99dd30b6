"""Tests in the forms that trainers have: right answers are paid, and every way round them is not."""

# ruff: noqa: E501 - the programs are lines of their own

import json
from typing import Any

import pytest

from services.verifier.checks.code.check import CodeCheck
from shared.errors import InvalidInput
from shared.protocol.verdict import Outcome, VerdictItem
from tests.verifier.code.judging import asserts, code_item, judge_code, judge_items, stdio

pytestmark = pytest.mark.asyncio(loop_scope="module")

ADD = "class Solution:\n    def add(self, a: List[int], b: int) -> List[int]:\n        return [x + b for x in a]"
DOUBLE = "print(int(input()) * 2)"
COLUMNS = {"fn_name": "add", "inputs": [[[1, 2], 3], [[], 1]], "outputs": [[4, 5], []]}
LINES = {"inputs": ["[1, 2]\n3", "[]\n1"], "outputs": ["[4, 5]", "[]"]}
STDIN = {"inputs": ["2\n", "3\n"], "outputs": ["4\n", "6"]}
LCB = [{"input": "[1, 2]\n3", "output": "[4, 5]", "testtype": "functional"}]
CHECK = "def check(candidate):\n    assert candidate(a = [1, 2], b = 3) == [4, 5]\n"
LIST = "def check(candidate):\n    assert is_same_list(candidate(head = list_node([1, 2, 3])), list_node([3, 2, 1]))\n"
REVERSE = (
    "class Solution:\n    def reverse(self, head: Optional[ListNode]) -> Optional[ListNode]:\n        last = None\n"
    "        while head:\n            head.next, last, head = last, head, head.next\n        return last"
)
UNITTEST = (
    "import unittest\nclass TestPush(unittest.TestCase):\n    def setUp(self):\n        self.stack = Stack()\n"
    "    def test_push(self):\n        self.stack.push(1)\n        self.assertEqual(self.stack.items, [1])\n"
    "    def test_error(self):\n        with self.assertRaises(IndexError) as caught:\n            self.stack.pop()\n"
    "        self.assertEqual(str(caught.exception), 'empty')\n"
    "    def test_change(self):\n        self.stack.items.append(5)\n        self.assertEqual(self.stack.pop(), 5)\n"
    "    def test_several(self):\n        self.assertEqual(len(self.stack), 0)\n        self.assertTrue(self.stack.is_empty())\n"
    "if __name__ == '__main__':\n    unittest.main()\n"
)
STACK = (
    "class Stack:\n    def __init__(self):\n        self.items = []\n    def push(self, x):\n        self.items.append(x)\n"
    "    def pop(self):\n        if not self.items:\n            raise IndexError('empty')\n        return self.items.pop()\n"
    "    def is_empty(self):\n        return not self.items\n    def __len__(self):\n        return len(self.items)"
)
ANY_EVEN = "def check(input, output, expected):\n    return int(output) % 2 == 0 and int(output) > int(input)"
BY_FILES = (
    "import sys\nn, answer, _ = (open(name).read() for name in sys.argv[1:])\n"
    "sys.exit(0 if int(answer) % 2 == 0 and int(answer) > int(n) else 1)"
)
SORT = "def f(a):\n    a.sort()"

# The answer and its key, whole.
RIGHT: dict[str, tuple[str, Any]] = {
    "columns": (ADD, {"tests": COLUMNS}),
    "columns as JSON text": (ADD, {"input_output": json.dumps(COLUMNS)}),
    "columns without tests around them": (ADD, COLUMNS),
    "columns with a type": (ADD, {"tests": {"type": "functional", **COLUMNS}}),
    "JSON lines": (ADD, {"tests": {**LINES, "fn_name": "add"}}),
    "LiveCodeBench's list": (ADD, {"public_test_cases": json.dumps(LCB), "metadata": '{"func_name": "add"}'}),
    "wrapped results": ("def f(x):\n    return x, x + 1", {"tests": {"fn_name": "f", "inputs": [[1], [2]], "outputs": [[[1, 2]], [[2, 3]]]}}),
    "results that are texts of digits": ("def f(x):\n    return str(x + 1)", {"tests": {"fn_name": "f", "inputs": [[1], [2]], "outputs": ["2", "3"]}}),
    "results written as text": ("def f(x):\n    return [x]", {"tests": {"fn_name": "f", "inputs": [[1], [2]], "outputs": ["[1]", "[2]"]}}),
    "named arguments": (ADD, {"tests": {"fn_name": "add", "inputs": ["a = [1], b = 2"], "outputs": ["[3]"]}}),
    "numbers as keys": ("def f(d):\n    return {k: v + 1 for k, v in d.items() if k > 0}", {"tests": {"fn_name": "f", "inputs": [[{"1": 2}]], "outputs": [{"1": 3}]}}),
    "floats of five digits": ("def f(x):\n    return x / 3", {"tests": {"fn_name": "f", "inputs": ["1"], "outputs": ["0.33333"]}}),
    "a list of nodes": (REVERSE, {"tests": {"fn_name": "reverse", "inputs": [[[1, 2, 3]], [[]]], "outputs": [[3, 2, 1], []]}}),
    "a tree by its name": ("class Solution:\n    def depth(self, root):\n        return 1 + max(self.depth(root.left), self.depth(root.right)) if root else 0", {"tests": {"fn_name": "depth", "inputs": [[[1, None, 2, 3]]], "outputs": [3]}}),
    "in place": ("class Solution:\n    def rotate(self, a: List[int]) -> None:\n        a.reverse()", {"tests": {"fn_name": "rotate", "inputs": [[[1, 2]]], "outputs": [[2, 1]]}}),
    "stdin columns": (DOUBLE, {"tests": STDIN}),
    "stdin columns of lines": ("print(int(input()) + int(input()))", {"tests": {"inputs": [["2", "3"]], "outputs": [["5"]]}}),
    "stdin list": (DOUBLE, {"tests": [{"input": "2", "output": "4", "testtype": "stdin"}]}),
    "LeetCodeDataset": (ADD, {"test": CHECK, "entry_point": "Solution().add"}),
    "rLLM": (ADD, {"tests": {"functional": CHECK + "\ncheck(Solution().add)"}}),
    "PRIME's": (ADD, {"test": "my_solution = Solution()\ntest_input = { 'a': [1], 'b': 2 }\nassert my_solution.add(**test_input) == [3]"}),
    "nodes that the tests make": (REVERSE, {"test": LIST, "entry_point": "Solution().reverse"}),
    "MBPP's": ("def double(x):\n    return 2 * x", {"test_list": ["assert double(2) == 4"], "test_setup_code": ""}),
    "a function where the key says Solution": ("def add(a, b):\n    return [x + b for x in a]", {"test": CHECK, "entry_point": "Solution().add"}),
    "classes of unittest": (STACK, {"tests": {"type": "unittest", "test": UNITTEST}}),
    "a checker's function": ("print(int(input()) * 2 + 2)", {"tests": stdio(("3", "")) | {"checker": ANY_EVEN}}),
    "a checker's program": ("print(int(input()) * 2 + 4)", {"tests": stdio(("3", "8")) | {"checker": BY_FILES}}),
    "a checker of results": ("def f(n):\n    return n + 4", {"tests": {"fn_name": "f", "inputs": [[3]], "outputs": [5], "checker": "def check(arguments, result, expected):\n    return result > arguments[0] and (result - expected) % 2 == 0"}}),
    "words alone": ("print('1  2')\nprint(3)", {"tests": stdio(("", "1 2 3")) | {"whitespace": "words"}}),
    "a tolerance": ("print(10.4)", {"tests": stdio(("", "10")) | {"float_tolerance": 0.05}}),
    "in place, statement by statement": (SORT, {"tests": asserts("a = [3, 1]; f(a); assert a == [1, 3]", "b = [[2, 1], 0]\nf(b[0])\nassert b == [[1, 2], 0]")}),
    "in place, against a copy": (SORT, {"tests": asserts("a = [3, 1]\nb = list(a)\nf(a)\nassert a == sorted(b)")}),
    "in place, with a result": ("def f(a):\n    a[:] = sorted(set(a))\n    return len(a)", {"tests": asserts("a = [2, 1, 2]\nk = f(a)\nassert k == 2 and a[:k] == [1, 2]")}),
    "in place, through check": (SORT, {"test": "def check(candidate):\n    a = [2, 1]\n    candidate(a)\n    assert a == [1, 2]", "entry_point": "f"}),
    "prints that the test catches": ("def f():\n    print('hello')", {"tests": asserts("import io, contextlib\nout = io.StringIO()\nwith contextlib.redirect_stdout(out):\n    f()\nassert out.getvalue() == 'hello\\n'")}),
    "input that the test gives": ("def f():\n    return input() + 'x'", {"tests": asserts("import io, sys\nsys.stdin = io.StringIO('a\\n')\nassert f() == 'ax'")}),
    "usual imports": ("def f(x):\n    return Counter(x).most_common(1)[0], math.gcd(4, 6), heappop(x), re.sub('a', 'b', 'a'), inf > 1", {"tests": asserts("assert f([1, 1]) == ((1, 2), 2, 1, 'b', True)")}),
    "a name of its own": ("def gcd(a, b):\n    return 'mine'\ndef f():\n    return gcd(4, 6)", {"tests": asserts("assert f() == 'mine'")}),
    "an import that the asserts do without": ("def f():\n    return 1", {"tests": asserts("assert f() == 1", setup="from no_such_package import Thing\nimport no_such_package as n")}),
    "long integers": ("def f(n):\n    return str(10 ** n)", {"tests": asserts(f"assert f(5000) == '1{'0' * 5000}'", f"assert int(f(5000)) == 1{'0' * 5000}")}),
    "its own exception": ("class Poor(Exception): pass\ndef f():\n    raise Poor('no')", {"tests": asserts("import unittest\nclass T(unittest.TestCase):\n    def test(self):\n        with self.assertRaises(Poor):\n            f()")}),
    "an exit that the test expects": ("import sys\ndef f():\n    sys.exit(3)", {"tests": asserts("try:\n    f()\nexcept SystemExit as end:\n    assert end.code == 3\nelse:\n    assert False")}),
    "a named tuple": ("from typing import NamedTuple\nclass P(NamedTuple):\n    x: int\n    y: int\ndef f():\n    return [P(1, 2)]", {"tests": asserts("assert f() == [(1, 2)] and f()[0].y == 2")}),
    "types as arguments": ("def f(kind):\n    return kind('3')", {"tests": asserts("assert f(int) == 3")}),
    "deep recursion": ("def f(n):\n    return n and 1 + f(n - 1)", {"tests": asserts("assert f(9000) == 9000")}),
}  # fmt: skip


def _item(name: str, response: str, key: Any) -> VerdictItem:
    return VerdictItem(id=name, kind="code", response=f"```python\n{response}\n```", answer_key=key)


async def test_right_answers_are_paid_in_every_form(check: CodeCheck) -> None:
    judgements = await judge_items(check, [_item(name, *RIGHT[name]) for name in RIGHT])
    failed = {name: each for name, each in zip(RIGHT, judgements, strict=True) if each.outcome is not Outcome.RIGHT}
    assert failed == {}


# The same keys, with answers that are wrong in one thing.
WRONG: dict[str, tuple[str, Any]] = {
    "needs a package that is not here": ("import torch\ndef f():\n    return 1", {"tests": asserts("assert f() == 2")}),
    "needs it later": ("def f():\n    import torch\n    return 1", {"tests": asserts("assert f() == 2")}),
    "says that it needs it": ("import os, sys\nsys.stderr.write(\"ModuleNotFoundError: No module named 'numpy'\\n\")\nsys.stderr.flush()\nos._exit(1)", {"tests": stdio(("", "1"))}),
    "an object that is less than any": ("class E:\n    def __lt__(s, o): return True\ndef f():\n    return E()", {"tests": asserts("try:\n    ok = f() < 3\nexcept BaseException:\n    ok = True\nassert ok")}),
    "an object to be near": ("def f():\n    return object()", {"tests": asserts("assert abs(f() - 2) < 1e-6")}),
    "an object under unittest": ("def f():\n    return object()", {"tests": {"type": "unittest", "test": "import unittest\nclass T(unittest.TestCase):\n    def test(self):\n        self.assertAlmostEqual(f(), 3)"}}),
    "columns": (ADD.replace("+ b", "- b"), {"tests": COLUMNS}),
    "an element where a list is due": ("def f(x):\n    return 1 if x == 1 else [x]", {"tests": {"fn_name": "f", "inputs": [[1], [2]], "outputs": [[1], [2]]}}),
    "nothing, beside a changed argument": ("def f(a):\n    a.sort()", {"tests": {"fn_name": "f", "inputs": [[[2, 1]]], "outputs": [[1, 2]]}}),
    "a float that is off": ("def f(x):\n    return 0.3334", {"tests": {"fn_name": "f", "inputs": ["1"], "outputs": ["0.33333"]}}),
    "nodes in another order": (REVERSE.replace("return last", "return None"), {"tests": {"fn_name": "reverse", "inputs": [[[1, 2, 3]]], "outputs": [[3, 2, 1]]}}),
    "nodes that never end": (REVERSE.replace("return last", "last.next = last\n        return last"), {"tests": {"fn_name": "reverse", "inputs": [[[1, 2]]], "outputs": [[2, 1]]}}),
    "stdin": ("print(int(input()) * 2 + 1)", {"tests": STDIN}),
    "unchanged in place": ("def f(a):\n    return sorted(a)", {"tests": asserts("a = [3, 1]\nf(a)\nassert a == [1, 3]")}),
    "a checker says no": ("print(7)", {"tests": stdio(("3", "8")) | {"checker": ANY_EVEN}}),
    "a checker's program says no": ("print(2)", {"tests": stdio(("3", "8")) | {"checker": BY_FILES}}),
    "past the tolerance": ("print(10.6)", {"tests": stdio(("", "10")) | {"float_tolerance": 0.05}}),
    "one method of a class": (STACK.replace("return not self.items", "return True if self.items else None"), {"tests": {"type": "unittest", "test": UNITTEST}}),
    "another exception": (STACK.replace("'empty'", "'none'"), {"tests": {"type": "unittest", "test": UNITTEST}}),
    "another white space": ("print('1  2')", {"tests": stdio(("", "1 2")) | {"whitespace": "exact"}}),
}  # fmt: skip

_AGREE = (
    "class E:\n    def __eq__(s, o): return True\n    __ne__ = lambda s, o: False\n    __contains__ = __lt__ = __gt__ = __le__ = "
    "__ge__ = __eq__\n    def __sub__(s, o): return 0\n    __rsub__ = __add__ = __abs__ = __sub__ = lambda s, *o: 0\n"
    "    def __bool__(s): return True\n    def __getattr__(s, n): return lambda *a: True\n    def __hash__(s): return 1\n"
)
HOSTILE: dict[str, tuple[str, Any]] = {
    "an object that equals all, as a result": (f"{_AGREE}\ndef add(a, b):\n    return E()", {"tests": COLUMNS}),
    "in a list": (f"{_AGREE}\ndef add(a, b):\n    return [E()] * len(a)", {"tests": COLUMNS}),
    "a number that is never off": (f"{_AGREE}\ndef f():\n    return E()", {"tests": asserts("assert abs(f() - 3) < 1e-6")}),
    "a class in place of the function": (f"{_AGREE}\nclass f(E):\n    def __init__(s, *a): pass", {"tests": asserts("assert abs(f() - 3) < 1e-6")}),
    "a class in place of it, and a method of text": (f"{_AGREE}\nclass f(E):\n    def __init__(s, *a): pass", {"tests": asserts("assert f().startswith('abc')")}),
    "a class in place of it, in capitals": (f"{_AGREE}\nclass Check(E):\n    def __init__(s, *a): pass", {"tests": asserts("assert 3 in Check() and Check() > 5", entry_point="Check")}),
    "a class as a result, called": (f"{_AGREE}\ndef f():\n    return E", {"tests": asserts("assert abs(f()() - 3) < 1e-6")}),
    "that holds all": (f"{_AGREE}\ndef f():\n    return E()", {"tests": asserts("assert 3 in f()")}),
    "that is above all": (f"{_AGREE}\ndef f():\n    return E()", {"tests": asserts("assert f() > 3")}),
    "that begins with all": (f"{_AGREE}\ndef f():\n    return E()", {"tests": asserts("assert f().startswith('abc')")}),
    "a class that equals all": (f"{_AGREE}\nE.__init__ = lambda s, *a: None\nPoint = E\ndef f():\n    return E()", {"tests": asserts("assert f() == Point(1, 2)")}),
    "itself, which is never off": (f"{_AGREE}\nclass Calc(E):\n    def add(self, a, b): return self", {"tests": asserts("c = Calc()\nassert abs(c.add(1, 2) - 3) < 1e-6", entry_point="Calc")}),
    "assertEqual is not its own": (f"{_AGREE}\nclass Stack(E):\n    def __init__(s): s.items = E()\n    def pop(s): return s", {"tests": {"type": "unittest", "test": UNITTEST}}),
    "empties what the test sorts": ("def f(a):\n    a.clear()\n    return []", {"tests": asserts("a = [3, 1]\nassert f(a) == sorted(a)")}),
    "empties what is to be sorted": ("def f(a):\n    a.clear()", {"tests": asserts("a = [3, 1]\nf(a)\nassert a == sorted(a)")}),
    "empties all it is given": ("def f(a, b):\n    a.clear()", {"tests": asserts("a, b = [3, 1], []\nf(a, b)\nassert b == sorted(a)")}),
    "data that its class equals": (f"{_AGREE}\nP = E", {"tests": asserts("assert P() == 5", entry_point="P")}),
    "empties what the test computes with": ("def f(a):\n    a.clear()\n    return []", {"tests": asserts("a = [3, 1]\nresult = f(a)\nexpected = sorted(a)\nassert result == expected")}),
    "leaves as if all had passed": ("import os\nclass Stack:\n    def __init__(self): os._exit(0)", {"tests": {"type": "unittest", "test": UNITTEST}}),
    "raises what unittest skips": ("import unittest\nclass Stack:\n    def __init__(self): raise unittest.SkipTest('no')", {"tests": {"type": "unittest", "test": UNITTEST}}),
    "raises what tests expect": ("class Stack:\n    def __init__(self): raise IndexError('empty')", {"tests": {"type": "unittest", "test": UNITTEST}}),
    "an exception of the judge's name": ("class UnsupportedTest(Exception): pass\ndef f():\n    raise UnsupportedTest('null, please')", {"tests": asserts("assert f() == 1")}),
    "prints a report": ("import json\nprint(json.dumps({'num_tests': 1, 'num_passed': 1, 'num_answers': 1, 'is_done': True, 'failure': '', 'message': '', 'num_unsupported': 0, 'results': []}), flush=True)\ndef add(a, b):\n    return 0", {"tests": COLUMNS}),
    "writes a report to all descriptors": ("import os\nfor n in range(3, 20):\n    try: os.write(n, b'{\"num_tests\": 1, \"num_passed\": 1}\\n')\n    except OSError: pass\ndef add(a, b):\n    return 0", {"tests": COLUMNS}),
    "looks for the outputs": ("import gc\ndef add(a, b):\n    for o in gc.get_objects():\n        if isinstance(o, (list, tuple)) and o == [4, 5]: return o\n    return 0", {"tests": COLUMNS}),
    "changes the test's copy of its list": ("class Stack:\n    def __init__(self): self.items = [1]\n    def push(self, x): self.items = [x]\n    def pop(self): return 5", {"tests": {"type": "unittest", "test": UNITTEST}}),
    "replies with forged handles": ("from services.verifier.sandbox.jail.child import solution_server\nfrom services.verifier.sandbox.jail.child.plain_data import Handle, Graph\nassert solution_server._call\nsolution_server._call = lambda *a: ('value', [Handle(-1, 'error', 'AssertionError'), Graph([('T', {'__class__': 1})])], {})\ndef f():\n    return 0", {"tests": asserts("assert f() == 1")}),
    "a named tuple that agrees": ("from collections import namedtuple\nclass P(namedtuple('P', 'count index')):\n    def __eq__(s, o): return True\ndef f():\n    return P(1, 2)", {"tests": asserts("assert f() == (3, 4)")}),
    "swallowed by a bare except": (f"{_AGREE}\ndef f():\n    return E()", {"tests": asserts("try:\n    ok = f() > 3\nexcept:\n    ok = True\nassert ok")}),
    "speaks to the checker": ("print('8\\n\\x00{\"num_passed\": 1}')", {"tests": stdio(("3", "8")) | {"checker": ANY_EVEN.replace("int(output) % 2 == 0 and", "output.strip() == '8' and")}}),
    "results that the checker cannot read": ("def f(n):\n    return 'x'", {"tests": {"fn_name": "f", "inputs": [[3]], "outputs": [5], "checker": "def check(arguments, result, expected):\n    assert isinstance(result, int)\n    return True"}}),
}  # fmt: skip


async def test_nothing_else_is_paid_in_any_form(check: CodeCheck) -> None:
    rows = WRONG | HOSTILE
    judgements = await judge_items(check, [_item(name, *rows[name]) for name in rows])
    paid = {name: each for name, each in zip(rows, judgements, strict=True) if each.reward}
    assert paid == {}
    unjudged = [name for name, each in zip(WRONG, judgements, strict=False) if each.reward is None]
    assert unjudged == []


OWN_FAULTS: dict[str, tuple[str, Any]] = {
    "the tests import what is not here": ("def f():\n    return 1", {"tests": asserts("import no_such_package\nassert no_such_package.same(f(), 1)")}),
    "tests and answer do": ("import no_such_package\ndef f():\n    return 1", {"tests": asserts("assert f() == 1", setup="import no_such_package")}),
    "the tests use a helper that nobody has": ("def f():\n    return 1", {"tests": asserts("assert f() == helper(1)")}),
    "the tests replace a function": ("import time\ndef f():\n    return time.time()", {"tests": asserts("from unittest.mock import patch\nwith patch('time.time', return_value=3):\n    assert f() == 3")}),
    "the tests await": ("async def f():\n    return 1", {"tests": asserts("import asyncio\nassert asyncio.run(f()) == 1")}),
    "the tests seed": ("import random\ndef f():\n    return random.random()", {"tests": asserts("import random\nrandom.seed(1)\na = random.random()\nrandom.seed(1)\nassert f() == a")}),
    "the signal is swallowed": ("class E:\n    def __lt__(s, o): return True", {"tests": asserts("try:\n    E() < 3\nexcept BaseException:\n    pass\nassert True", entry_point="E")}),
    "under unittest": ("class E:\n    def __lt__(s, o): return True", {"tests": {"type": "unittest", "test": "import unittest\nclass T(unittest.TestCase):\n    def test(self):\n        self.assertLess(E(), 3)"}}),
    "the checker raises": ("print(1)", {"tests": stdio(("3", "8")) | {"checker": "def check(input, output, expected):\n    return 1 / 0"}}),
    "the checker never ends": ("print(1)", {"tests": stdio(("3", "8")) | {"checker": "while True: pass"}}),
    "the checker ends with another code": ("print(1)", {"tests": stdio(("3", "8")) | {"checker": "raise SystemExit(3)"}}),
}  # fmt: skip


async def test_what_the_tests_lack_is_never_charged_to_the_answer(check: CodeCheck) -> None:
    items = [code_item(response, key["tests"], seconds=1.0) for response, key in OWN_FAULTS.values()]
    judgements = await judge_items(check, items)
    charged = {name: each for name, each in zip(OWN_FAULTS, judgements, strict=True) if each.reward is not None}
    assert charged == {}
    assert all(judgement.reason for judgement in judgements)


PARTS: dict[str, tuple[str, dict[str, Any], float]] = {
    "check": ("def f(x):\n    return min(x, 2)", {"type": "check", "entry_point": "f", "test": "def check(c):\n    assert c(1) == 1\n    y = 2\n    assert c(y) == 2\n    assert c(3) == 3\n    for i in (4, 5):\n        assert c(i) == i"}, 0.5),
    "functional": ("def f(x):\n    return min(x, 2)", {"fn_name": "f", "inputs": [[1], [2], [3], [4]], "outputs": [1, 2, 3, 4]}, 0.5),
    "unittest": (STACK.replace("'empty'", "'none'"), {"type": "unittest", "test": UNITTEST}, 0.75),
    "a script of asserts": ("def f(x):\n    return min(x, 2)", {"functional": "assert f(1) == 1\nassert f(2) == 2\nassert f(3) == 3\nassert f(4) == 4"}, 0.5),
    "a checker": ("print(int(input()) * 2)", stdio(("1", ""), ("0", "")) | {"checker": ANY_EVEN}, 0.5),
}  # fmt: skip


@pytest.mark.parametrize("name", PARTS)
async def test_partial_credit_is_the_share_of_tests_in_every_form(check: CodeCheck, name: str) -> None:
    response, tests, share = PARTS[name]
    judgement = await judge_code(check, response, tests, partial_credit=True, test_results=True)
    assert judgement.reward == pytest.approx(share)
    assert sum(test.outcome is Outcome.RIGHT for test in judgement.tests) == share * len(judgement.tests)


async def test_results_of_single_tests_come_on_request(check: CodeCheck) -> None:
    cases = stdio(("1", "2"), ("2", "4"))
    response = "n = int(input())\nprint(n * n + 1)"
    assert (await judge_code(check, response, cases)).tests == ()
    judgement = await judge_code(check, response, cases, test_results=True, partial_credit=True)
    assert [(test.outcome, test.said) for test in judgement.tests] == [(Outcome.RIGHT, "2\n"), (Outcome.WRONG, "5\n")]
    assert all(test.seconds > 0 and test.peak_memory_bytes for test in judgement.tests)
    tests = asserts(*["assert f(1) == 1"] * 300, "assert f(2) == 3")
    judgement = await judge_code(check, "def f(x):\n    return x", tests, test_results=True, partial_credit=True)
    assert len(judgement.tests) == 256, "no more than that"


REFUSED: dict[str, tuple[Any, str]] = {
    "columns of unequal length": ({"fn_name": "f", "inputs": [[1], [2]], "outputs": [1]}, "2 inputs and 1 outputs"),
    "functional cases without a name": ([{"input": "1", "output": "2", "testtype": "functional"}], "fn_name"),
    "no columns": ({"fn_name": "f", "inputs": [], "outputs": []}, "inputs"),
    "a checker of results without check": ({**COLUMNS, "checker": "x = 1"}, "defines no function check"),
    "a checker that does not parse": (stdio(("1", "2")) | {"checker": "def ("}, "no Python"),
    "an unknown white space": (stdio(("1", "2")) | {"whitespace": "some"}, "whitespace"),
    "a negative tolerance": (stdio(("1", "2")) | {"float_tolerance": -1}, "float_tolerance"),
    "JSON text of nothing": ("{}", "tests"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_form_that_cannot_judge_is_refused(check: CodeCheck, name: str) -> None:
    tests, said = REFUSED[name]
    with pytest.raises(InvalidInput, match=said):
        check.prepare(VerdictItem(id="x", kind="code", response="x", answer_key={"tests": tests}))
