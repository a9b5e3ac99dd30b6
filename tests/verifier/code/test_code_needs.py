"""Problems that need files or packages: judged where those are here, unjudged where not, never charged for it."""

import base64
import json
import pickle
import textwrap
import zlib
from typing import Any

import pytest

from services.verifier.checks.code.check import CodeCheck, open_code_check
from services.verifier.checks.code.needs import find_needs
from services.verifier.checks.code.packed_tests import MAX_TEXT_BYTES, unpack_tests
from services.verifier.config import CodeConfig
from shared.errors import InvalidInput
from shared.protocol.verdict import Outcome, VerdictItem
from tests.verifier.code.judging import asserts, code_item, judge_items, stdio

pytestmark = pytest.mark.asyncio(loop_scope="module")

WRITES = asserts("f('out.txt')\nassert open('out.txt').read() == 'kept'", entry_point="f")
READS = asserts("with open('in.txt', 'w') as file:\n    file.write('7')\nassert f('in.txt') == 7", entry_point="f")
SHARES = {"type": "unittest", "test": textwrap.dedent("""
    import os, sqlite3, tempfile, unittest
    class TestStore(unittest.TestCase):
        def setUp(self):
            self.path = os.path.join(tempfile.gettempdir(), 'data.db')
            with sqlite3.connect(self.path) as data:
                data.execute('create table rows (n)')
            self.store = Store(self.path)
        def test_add(self):
            self.store.add(3)
            with sqlite3.connect(self.path) as data:
                self.assertEqual(data.execute('select n from rows').fetchall(), [(3,)])
            self.store.connection.close()
            os.remove(self.path)
""")}  # fmt: skip
STORE = textwrap.dedent("""
    import sqlite3
    class Store:
        def __init__(self, path):
            self.connection = sqlite3.connect(path)
        def add(self, n):
            self.connection.execute('insert into rows values (?)', (n,))
            self.connection.commit()
""")
UNPICKLES = asserts("import pickle\nf('x')\nassert pickle.load(open('x', 'rb')) == [4]", entry_point="f")
PICKLES = "import pickle\ndef f(name):\n    with open(name, 'wb') as file:\n        pickle.dump({}, file)"
TAKES_OVER = "class Evil:\n    def __reduce__(self):\n        return (eval, ('[4]',))\n"

RIGHT: dict[str, tuple[str, dict[str, Any]]] = {
    "the answer writes": ("def f(name):\n    with open(name, 'w') as file:\n        file.write('kept')", WRITES),
    "the tests write": ("def f(name):\n    return int(open(name).read())", READS),
    "both share a database": (STORE, SHARES),
    "a file of data is unpickled": (PICKLES.format("[4]"), UNPICKLES),
}
WRONG: dict[str, tuple[str, dict[str, Any]]] = {
    "nothing is written": ("def f(name):\n    pass", WRITES),
    "something else is": ("def f(name):\n    with open(name, 'w') as file:\n        file.write('lost')", WRITES),
    "a folder is made instead": ("import os\ndef f(name):\n    os.mkdir(name)", WRITES),
    "the disk is full": ("for n in range(9):\n    open(f'x{n}', 'wb').write(bytes(4 << 20))\ndef f(name): pass", READS),
    "there are too many files": ("for n in range(2000):\n    open(f'x{n}', 'w').close()\ndef f(name): pass", READS),
    "nothing is committed": (STORE.replace("self.connection.commit()", "pass"), SHARES),
    "another's package": ("import no_such_package\ndef f():\n    return 1", asserts("assert f() == 1")),
}  # fmt: skip
UNJUDGED: dict[str, tuple[str, dict[str, Any]]] = {
    "a program is unpickled": (TAKES_OVER + PICKLES.format("Evil()"), UNPICKLES),
    "the tests have a file that is not here": ("def f(rows): pass", asserts("assert f(open('rows.csv').read()) == 3")),
}


async def test_files_are_shared_with_the_tests_and_prove_nothing_else(check: CodeCheck) -> None:
    rows = RIGHT | WRONG | UNJUDGED
    judgements = await judge_items(check, [code_item(answer, tests, seconds=5.0) for answer, tests in rows.values()])
    rewards = {name: (each.reward, each.reason) for name, each in zip(rows, judgements, strict=True)}
    owed = dict.fromkeys(RIGHT, 1.0) | dict.fromkeys(WRONG, 0.0) | dict.fromkeys(UNJUDGED, None)
    assert {name: reward for name, reward in rewards.items() if reward[0] != owed[name]} == {}


# What a program with a folder tries; each must raise.
ESCAPES = (
    "os.symlink('/etc/passwd', 'a')",
    "os.link('kept', 'b')",
    "os.mkfifo('c')",
    "os.mknod('d', stat.S_IFSOCK | 0o600)",
    "os.mknod('e', stat.S_IFCHR | 0o600, os.makedev(1, 3))",
    "os.listdir('..')",
    "os.listdir('/scratch/0/..')",
    "open('../other', 'w')",
    "open('/other', 'w')",
    "open('kept/../../../other', 'w')",
    "[os.chdir('/'), open('other', 'w')]",
    "os.rename('kept', '../kept')",
    "[os.chmod('kept', 0o777), os.execv('./kept', ['kept'])]",
    "mmap.mmap(os.open('kept', os.O_RDWR), 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)",
    "os.chmod('/dev/null', 0o600)",
    "os.truncate(os.__file__, 0)",
    "os.setxattr('kept', 'user.x', b'1')",
    "[open(f'big{n}', 'wb').write(bytes(1 << 20)) for n in range(20)]",
    "[open(f'many{n}', 'wb').close() for n in range(2000)]",
)
PROBE = """
import mmap, os, stat
home = os.getcwd()
print(sorted(os.listdir()))
with open('kept', 'wb') as file:
    file.write(bytes(4096))
for attempt in ATTEMPTS:
    try:
        eval(attempt)
        print(attempt)
    except OSError:
        pass
    os.chdir(home)
"""


async def test_a_folder_holds_plain_files_of_one_run_and_no_more(check: CodeCheck) -> None:
    program = PROBE.replace("ATTEMPTS", repr(ESCAPES))
    cases = stdio(("", "[]"), ("", "[]"))  # each case has a folder of its own
    judgements = await judge_items(check, [code_item(program, cases, files=True) for _ in range(4)])
    assert [(each.outcome, each.reason) for each in judgements] == [(Outcome.RIGHT, "")] * 4


async def test_without_the_key_s_wish_a_program_has_no_folder(check: CodeCheck) -> None:
    program = "try:\n    open('x', 'w')\nexcept OSError:\n    print('none')"
    (judgement,) = await judge_items(check, [code_item(program, stdio(("", "none")))])
    assert judgement.outcome is Outcome.RIGHT


async def test_a_problem_whose_needs_are_not_here_has_no_reward() -> None:
    writes, reads = RIGHT["the answer writes"], RIGHT["the tests write"]
    items = [
        code_item(writes[0], writes[1], files=True),
        code_item(*reads),
        code_item("def f():\n    return 1", asserts("assert f() == 1"), packages=["numpy"]),
    ]
    async with open_code_check(CodeConfig(namespaces=False, concurrency=1)) as bare:
        judgements = await judge_items(bare, items)
    assert [each.outcome for each in judgements] == [Outcome.UNSUPPORTED] * 3
    assert "they need namespaces" in judgements[0].reason
    assert "code.packages" in judgements[2].reason


@pytest.mark.parametrize(
    ("reference", "needs"),
    [
        ("import os, numpy.linalg as la\nfrom PIL import Image", {"packages": ["PIL", "numpy"]}),
        ("def f():\n    import pandas\n    return SortedList()", {"packages": ["pandas", "sortedcontainers"]}),
        ("def f(name):\n    return open(name).read()", {"files": True}),
        ("import sqlite3\nsqlite3.connect(':memory:')\nshop.open(3)\nfrom . import x", {}),
    ],
)
async def test_a_reference_tells_what_its_problem_needs(reference: str, needs: dict[str, Any]) -> None:
    assert find_needs(reference) == needs


def _pack(value: Any, protocol: int = 4) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(value, protocol))).decode()


PRIVATE = json.dumps([{"input": "3\n", "output": "6\n", "testtype": "stdin"}])


@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
async def test_private_tests_of_livecodebench_are_unpacked(check: CodeCheck, protocol: int) -> None:
    public = json.dumps([{"input": "2\n", "output": "4\n", "testtype": "stdin"}])
    key = {"public_test_cases": public, "private_test_cases": _pack(PRIVATE, protocol), "metadata": "{}"}
    answers = ("print(int(input()) * 2)", "print(4)", "print(6)")
    items = [VerdictItem(id="x", kind="code", response=answer, answer_key=key) for answer in answers]
    assert [each.reward for each in await judge_items(check, items)] == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "packed",
    [
        _pack([1]), _pack({"a": "b"}), _pack(print), _pack(b"x"), _pack(("a", "b")), "no base64!",
        _pack("x")[:-8] + "AAAA",
        base64.b64encode(zlib.compress(b"\x80\x04X\xff\xff\xff\xff")).decode(),
        base64.b64encode(zlib.compress(b"\x80\x04\x94")).decode(),
        base64.b64encode(zlib.compress(b"\x80\x04X\x01\x00\x00\x00ar\xff\xff\xff\x7f")).decode(),
        _pack("x" * (MAX_TEXT_BYTES + 1)),
    ],
)  # fmt: skip
async def test_nothing_but_a_text_is_unpacked(check: CodeCheck, packed: str) -> None:
    with pytest.raises(ValueError, match="private tests"):
        unpack_tests(packed)
    with pytest.raises(InvalidInput, match="private tests"):
        check.prepare(VerdictItem(id="x", kind="code", response="1", answer_key={"private_test_cases": packed}))


async def test_a_key_with_its_reference_says_what_it_needs(check: CodeCheck) -> None:
    key = {"tests": WRITES, "reference": "import numpy\ndef f(name):\n    numpy.save(name, [4])"}
    prepared = check.prepare(VerdictItem(id="a", kind="code", response="def f(name): pass", answer_key=key)).key
    assert prepared.needs.packages == ("numpy",)
    with pytest.raises(InvalidInput, match="its reference is no Python"):
        check.prepare(VerdictItem(id="a", kind="code", response="x", answer_key=key | {"reference": "def f("}))


YEAR = asserts("import datetime\nassert f() == 1 and datetime.date.today().year < 2020", entry_point="f")


async def test_an_answer_is_charged_only_where_the_reference_passes(check: CodeCheck) -> None:
    one, two = "def f():\n    return 1", "def f():\n    return 2"
    fair = asserts("assert f() == 1", entry_point="f")
    rows = [(YEAR, one, one), (YEAR, one, two), (fair, one, two), (fair, one, one), (fair, two, two)]
    items = [
        VerdictItem(id=str(n), kind="code", response=answer, answer_key={"tests": tests, "reference": reference})
        for n, (tests, reference, answer) in enumerate(rows)
    ]
    judged = await judge_items(check, items)
    assert [one.reward for one in judged] == [None, None, 0.0, 1.0, None]
    assert "reference solution fails these tests here, too" in judged[0].reason
