"""Functions judged by tests that live in another process."""

# ruff: noqa: E501 - the programs are lines of their own

import pytest

from services.verifier.checks.code.check import CodeCheck
from shared.protocol.verdict import Outcome
from tests.verifier.code.judging import asserts, judge_code

pytestmark = pytest.mark.asyncio(loop_scope="module")


RIGHT = {
    "a sum": ("def f(a, b):\n    return a + b", asserts("assert f(1, 2) == 3")),
    "keywords": ("def f(a, *, b=1):\n    return a - b", asserts("assert f(3, b=2) == 1", "assert f(a=3) == 2")),
    "prints meanwhile": ("def f(a):\n    print('working')\n    return a", asserts("assert f(1) == 1")),
    "collections": (
        "from collections import *\ndef f(x):\n    return Counter(x), OrderedDict(a=1), defaultdict(int, {1: 2}), deque(x)",
        asserts(
            "a, b, c, d = f('aa')\nassert a == {'a': 2} and b == {'a': 1} and c == {1: 2} and list(d) == ['a', 'a']"
        ),
    ),
    "tuples stay tuples": ("def f():\n    return (1, [2, (3,)])", asserts("assert f() == (1, [2, (3,)])")),
    "sets": ("def f(x):\n    return {frozenset(x)}", asserts("assert f([1, 1]) == {frozenset({1})}")),
    "a generator": ("def f(n):\n    yield from range(n)", asserts("assert list(f(3)) == [0, 1, 2]")),
    "a map": ("def f(x):\n    return map(str, x)", asserts("assert list(f([1])) == ['1']")),
    "dates": (
        "import datetime\ndef f(d):\n    return d + datetime.timedelta(1)",
        asserts("import datetime\nassert f(datetime.date(2024, 2, 28)) == datetime.date(2024, 2, 29)"),
    ),
    "large integers": ("def f(n):\n    return 7 ** n", asserts("assert f(20000) == 7 ** 20000")),
    "closeness": (
        "def f(x):\n    return x / 3",
        asserts("assert abs(f(1) - 0.333333) < 1e-3", "assert math.isclose(f(3), 1)"),
    ),
    "its own exception": (
        "class Bad(ValueError): pass\ndef f(x):\n    raise Bad('no')",
        asserts("try:\n    f(1)\nexcept ValueError as e:\n    assert str(e) == 'no'\nelse:\n    assert False"),
    ),
    "a constant beside it": ("LIMIT = 5\ndef f(x):\n    return min(x, LIMIT)", asserts("assert f(9) == LIMIT == 5")),
    "another function beside it": (
        "def g(x):\n    return x + 1\ndef f(x):\n    return x - 1",
        asserts("assert f(g(4)) == 4"),
    ),
    "tests with a helper of their own": (
        "def f(x):\n    return sorted(x)",
        asserts("assert good(f([2, 1]))", setup="def good(x):\n    return all(a <= b for a, b in zip(x, x[1:]))"),
    ),
    "a helper of the tests that the answer also has": (
        "def poly(x):\n    return 0\ndef f():\n    return 2",
        asserts("assert poly(f()) == 4", setup="def poly(x):\n    return x * x"),
    ),
    "a name of a builtin": (
        "def sum(a, b):\n    return a + b + 0",
        asserts("assert sum(1, 2) == 3", entry_point="sum"),
    ),
    "a wrong entry point in the key": (
        "def g(x):\n    return [x]",
        asserts("assert set(g(1)) == {1}", entry_point="set"),
    ),
    "state": ("n = 0\ndef f():\n    global n\n    n += 1\n    return n", asserts("assert f() == 1", "assert f() == 2")),
    "unittest": (
        "def f(x):\n    return x",
        asserts(
            "import unittest, io\nclass T(unittest.TestCase):\n    def test(self):\n        self.assertEqual(f(1), 1)\n"
            "r = unittest.TextTestRunner(stream=io.StringIO()).run(unittest.defaultTestLoader.loadTestsFromTestCase(T))\n"
            "assert r.wasSuccessful() and r.testsRun == 1"
        ),
    ),
    "check form": (
        "def f(x):\n    return x",
        {"type": "check", "entry_point": "f", "test": "def check(candidate):\n    assert candidate(1) == 1\n"},
    ),
    "a main guard that would read": (
        "def f():\n    return 1\nif __name__ == '__main__':\n    f(input())",
        asserts("assert f() == 1"),
    ),
    "objects of its own": (
        "class P:\n    def __init__(self, x): self.x = x\ndef f(p):\n    return p.x",
        asserts("assert f(P(3)) == 3"),
    ),
    "methods of its own": (
        "class S:\n    def push(self, x): self.x = x",
        asserts("s = S()\ns.push(1)\nassert s.x == 1", entry_point="S"),
    ),
    "None and falsehood": ("def f(x):\n    return x or None", asserts("assert f(0) is None", "assert not f(0)")),
    "nested fences": ("Sure!\n```python\ndef f():\n    return 1\n```\nand `f` is it", asserts("assert f() == 1")),
    "threads": (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(99,)).start()\ndef f():\n    return 1",
        asserts("assert f() == 1"),
    ),
}


@pytest.mark.parametrize("name", RIGHT)
async def test_a_right_function_is_rewarded(check: CodeCheck, name: str) -> None:
    judgement = await judge_code(check, *RIGHT[name])
    assert (judgement.outcome, judgement.reward, judgement.reason) == (Outcome.RIGHT, 1.0, "")
    assert judgement.isolated


NOT_RIGHT = {
    "wrong": ("def f(x):\n    return 0", asserts("assert f(1) == 1"), Outcome.WRONG),
    "wrong in one": ("def f(x):\n    return 1", asserts("assert f(1) == 1", "assert f(2) == 2"), Outcome.WRONG),
    "raises": ("def f(x):\n    return 1 / 0", asserts("assert f(1) == 1"), Outcome.RUNTIME_ERROR),
    "raises where None is right": (
        "def f():\n    raise Exception",
        asserts("assert f() is None"),
        Outcome.RUNTIME_ERROR,
    ),
    "exits": ("def f():\n    raise SystemExit(0)", asserts("assert f() is None"), Outcome.RUNTIME_ERROR),
    "exits hard": ("import os\ndef f():\n    os._exit(0)", asserts("assert f() is None"), Outcome.RUNTIME_ERROR),
    "exits after loading": (
        "import sys\ndef f():\n    return 1\nsys.exit()",
        asserts("assert f() == 1"),
        Outcome.RUNTIME_ERROR,
    ),
    "does not parse": ("def f(:", asserts("assert f() == 1"), Outcome.RUNTIME_ERROR),
    "absent": ("def g():\n    return 1", asserts("assert f() == 1"), Outcome.RUNTIME_ERROR),
    "loops": ("def f():\n    while True: pass", asserts("assert f() == 1"), Outcome.TIMED_OUT),
    "loops while loading": ("while True: pass", asserts("assert f() == 1"), Outcome.TIMED_OUT),
    "loops while its result is read": (
        "def f():\n    while True: yield 1\ndef g():\n    while True: pass\ndef f():\n    return (g() for _ in [1])",
        asserts("assert f() == 1"),
        Outcome.TIMED_OUT,
    ),
    "takes all memory": ("def f():\n    return [0] * 10**10", asserts("assert f() == 1"), Outcome.MEMORY),
    "takes all memory while loading": (
        "x = [0] * 10**10\ndef f():\n    return 1",
        asserts("assert f() == 1"),
        Outcome.MEMORY,
    ),
    "crashes": ("import ctypes\ndef f():\n    ctypes.string_at(0)", asserts("assert f() == 1"), Outcome.RUNTIME_ERROR),
    "breaks the rules": (
        "import ctypes\ndef f():\n    return ctypes.CDLL(None).unshare(0x10000000)",
        asserts("assert f() == 0"),
        Outcome.SANDBOX_VIOLATION,
    ),
    "forks": ("import os\ndef f():\n    return os.fork()", asserts("assert f() == 0"), Outcome.RUNTIME_ERROR),
    "floods": ("def f():\n    while True: print('x' * 10**5)", asserts("assert f() == 0"), Outcome.RUNTIME_ERROR),
    "returns something enormous": (
        "def f():\n    return 'x' * 10**8",
        asserts("assert len(f()) == 10**8"),
        Outcome.OUTPUT_LIMIT,
    ),
    "returns something endless": (
        "import itertools\ndef f():\n    return itertools.count()",
        asserts("assert f() == 1"),
        Outcome.WRONG,
    ),
    "an object that says yes": (
        "class E:\n    def __eq__(self, o): return True\ndef f():\n    return E()",
        asserts("assert f() == 1"),
        Outcome.WRONG,
    ),
    "an object on the right": (
        "class E:\n    def __eq__(self, o): return True\ndef f():\n    return E()",
        asserts("assert 1 == f()", "assert [1] == [f()]"),
        Outcome.WRONG,
    ),
    "a list of objects that say yes": (
        "class E(int):\n    def __eq__(self, o): return True\n    __hash__ = int.__hash__\ndef f():\n    return [E(0)]",
        asserts("assert f() == [1]"),
        Outcome.WRONG,
    ),
    "a dictionary that says yes": (
        "class D(dict):\n    def __eq__(self, o): return True\n    def __missing__(self, k): return 1\ndef f():\n    return D()",
        asserts("assert f() == {1: 1}", "assert f()[1] == 1"),
        Outcome.WRONG,
    ),
    "a truthy object": ("class E: pass\ndef f():\n    return E()", asserts("assert f()"), Outcome.UNSUPPORTED),
    "the tests hand it a function": (
        "def f(g):\n    return g(1)",
        asserts("assert f(lambda x: x + 1) == 2"),
        Outcome.UNSUPPORTED,
    ),
    "the tests never call it": ("def f():\n    return 1", asserts("assert 1 == 1"), Outcome.UNSUPPORTED),
    "mutates what it was given": (
        "def f(x):\n    x.clear()\n    return []",
        asserts("x = [3, 1]\nassert f(x) == sorted(x)"),
        Outcome.WRONG,
    ),
    "no program": ("   \n", asserts("assert f() == 1"), Outcome.NO_ANSWER),
    "still thinking": ("<think> def f(): return 1", asserts("assert f() == 1"), Outcome.NO_ANSWER),
}


@pytest.mark.parametrize("name", NOT_RIGHT)
async def test_anything_else_earns_nothing_and_says_why(check: CodeCheck, name: str) -> None:
    response, tests, outcome = NOT_RIGHT[name]
    judgement = await judge_code(check, response, tests, seconds=2.0)
    reward = 0.0 if outcome.is_judged else None
    assert (judgement.outcome, judgement.reward) == (outcome, reward), judgement
    assert judgement.reason
    assert judgement.seconds < 12


# What a solution may try on the line to its judge (descriptor 4) and on the judge itself.
TRICKS = {
    "answer before being asked": "import os, struct\nfrom services.verifier.sandbox.jail.child.plain_data import encode\n"
    "d = encode(('value', None))\nfor _ in range(9): os.write(4, struct.pack('<I', len(d)) + d)\ndef f(x):\n    return 0",
    "write rubbish": "import os\nos.write(4, b'rubbish' * 100)\ndef f(x):\n    return 1",
    "announce a huge frame": "import os\nos.write(4, b'\\xff' * 4)\ndef f(x):\n    return 1",
    "announce and never send": "import os\nos.write(4, b'\\x00\\x00\\x00\\x01')\ndef f(x):\n    return 1",
    "flood": "import os\ndef f(x):\n    while True: os.write(4, b'N' * 65536)",
    "close": "import os\nos.close(4)\ndef f(x):\n    return x",
    "shut": "import socket\nsocket.socket(fileno=4).shutdown(2)\ndef f(x):\n    return x",
    "answer with another shape": "from services.verifier.sandbox.jail.child import solution_server\n"
    "assert solution_server._call\nsolution_server._call = lambda *a: ('value', 1, 2)\ndef f(x):\n    return x",
    "answer with a frame of nothing": "import os\nos.write(4, bytes(4))\ndef f(x):\n    return x",
    "claim to be the judge's failure": "from services.verifier.sandbox.jail.child import solution_server\n"
    "assert solution_server._call\nsolution_server._call = lambda *a: ('raised', 'SystemExit', '0')\ndef f(x):\n    return x",
    "raise what ends tests": "def f(x):\n    raise KeyboardInterrupt",
    "raise what ends iteration": "def f(x):\n    raise StopIteration",
    "raise a group": "def f(x):\n    raise BaseExceptionGroup('x', [SystemExit(0)])",
    "raise something with a hostile name": "class E(Exception):\n    def __str__(self): raise SystemExit(0)\n"
    "E.__name__ = 'AssertionError'\ndef f(x):\n    raise E",
    "a frame too deep": "import os, struct\nd = b'l\\x01\\x00\\x00\\x00' * 9999 + b'N'\n"
    "os.write(4, struct.pack('<I', len(d)) + d)\ndef f(x):\n    return x",
    "unhashable keys": "import os, struct\nd = b'S\\x01\\x00\\x00\\x00l\\x00\\x00\\x00\\x00'\n"
    "os.write(4, struct.pack('<I', len(d)) + d)\ndef f(x):\n    return x",
    "find the judge's script": "import gc\ndef f(x):\n    for o in gc.get_objects():\n"
    "        if isinstance(o, dict) and 'tests' in o: return 1234567\n    return 0",
    "replace the codec": "from services.verifier.sandbox.jail.child import plain_data\nplain_data._CONSTANTS[b'N'] = 1\n"
    "assert plain_data.decode\nplain_data.decode = lambda d: 1\ndef f(x):\n    return None",
    "patch builtins": "import builtins\nfor n in ('abs', 'all', 'any', 'len', 'sorted', 'isinstance', 'type', 'exec'):\n"
    "    setattr(builtins, n, lambda *a, **k: True)\ndef f(x):\n    return 0",
    "trace": "import sys\nsys.settrace(lambda *a: None)\nsys.setprofile(lambda *a: None)\ndef f(x):\n    return 0",
    "audit hook": "import sys\nsys.addaudithook(lambda *a: None)\ndef f(x):\n    return 0",
    "leave late": "import threading, os, time\nthreading.Thread(target=lambda: (time.sleep(0.01), os._exit(0))).start()\n"
    "import time\ndef f(x):\n    time.sleep(0.1)\n    return 1234567",
}


@pytest.mark.parametrize("name", TRICKS)
async def test_a_trick_on_the_judge_earns_nothing(check: CodeCheck, name: str) -> None:
    tests = asserts("assert f(1) == 1234567", "assert f(2) == 1234567 + 1")
    judgement = await judge_code(check, TRICKS[name], tests, seconds=1.5)
    assert judgement.reward == 0.0, judgement
    # What it attacks was there under that name.
    assert not any(f"{error}Error" in judgement.reason for error in ("ModuleNotFound", "Import", "Attribute"))
    assert judgement.seconds < 12


async def test_a_solution_that_cannot_be_loaded_says_why(check: CodeCheck) -> None:
    judgement = await judge_code(
        check, "import nothing_like_this\ndef f(x):\n    return x", asserts("assert f(1) == 1")
    )
    assert (judgement.outcome, judgement.reward) == (Outcome.RUNTIME_ERROR, 0.0)
    assert "ModuleNotFoundError: No module named 'nothing_like_this'" in judgement.reason


async def test_partial_credit_is_the_share_of_tests_passed(check: CodeCheck) -> None:
    tests = asserts("x = 1", "assert f(1) == 1", "assert f(2) == 2", "assert f(3) == 3", "assert f(4) == 5")
    judgement = await judge_code(check, "def f(x):\n    return x % 3 or 3 if x < 9 else 0", tests, partial_credit=True)
    assert (judgement.reward, judgement.outcome) == (0.75, Outcome.WRONG)
    assert "3 of 4 tests passed" in judgement.reason
    assert (await judge_code(check, "def f(x):\n    return x % 3 or 3", tests)).reward == 0.0
    assert (await judge_code(check, "def f(x):\n    return x + (x == 4)", tests, partial_credit=True)).reward == 1.0


async def test_partial_credit_survives_a_test_that_never_ends(check: CodeCheck) -> None:
    tests = asserts("assert f(1) == 1", "assert f(2) == 2", "assert f(3) == 3")
    response = "def f(x):\n    while x == 3: pass\n    return x"
    judgement = await judge_code(check, response, tests, seconds=0.5, partial_credit=True)
    assert judgement.outcome is Outcome.TIMED_OUT
    assert judgement.reward == pytest.approx(2 / 3)


async def test_partial_credit_is_not_for_tests_that_call_nothing(check: CodeCheck) -> None:
    tests = asserts("assert True", "assert f(1) == 1")
    assert (await judge_code(check, "import os\nos._exit(0)", tests, partial_credit=True)).reward == 0.0
