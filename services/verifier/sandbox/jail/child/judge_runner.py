"""Runs a judge's script against a solution in another process."""

import ast
import builtins
import importlib
import os
import sys
import types
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any

from services.verifier.sandbox.jail.child.hand_backs import TEST_FILE, HandBacks
from services.verifier.sandbox.jail.child.judge_channel import JudgeChannel
from services.verifier.sandbox.jail.child.judging.checker_runner import run_checker
from services.verifier.sandbox.jail.child.judging.functional_runner import run_functional
from services.verifier.sandbox.jail.child.judging.tally import TestTally, explain_own
from services.verifier.sandbox.jail.child.solution_client import TESTS_MODULE, SolutionClient, split_entry_point
from services.verifier.sandbox.jail.child.usual_names import (
    NAMES_OF_TESTS,
    NODE_HELPER_NAMES,
    NODE_HELPERS,
    NODE_NAMES,
    usual_value,
)
from services.verifier.sandbox.judge_script import (
    CheckerScript,
    FunctionalScript,
    JudgeReport,
    JudgeScript,
    find_test_classes,
    has_assertion,
    unpack_script,
)

_RECURSION = 20_000
_MAX_DIGITS = 100_000
_ONE_TEST = "__one_test__"
_REPLACING = frozenset(
    {"patch", "patch.object", "patch.dict", "mock.patch", "mock.patch.object", "mock.patch.dict"}
    | {"unittest.mock.patch", "unittest.mock.patch.object", "monkeypatch.setattr"}
)
_AWAITING = frozenset({"asyncio.run", "loop.run_until_complete", "asyncio.get_event_loop().run_until_complete"})
_SEEDING = frozenset({"random.seed", "seed", "np.random.seed", "numpy.random.seed"})
_UNPICKLING = frozenset(
    {"pickle.load", "pickle.loads", "shelve.open", "joblib.load", "pd.read_pickle", "pandas.read_pickle"}
)
_FILES = frozenset(
    {"open", "shutil.rmtree", "Image.open"}
    | {
        f"os.{name}"
        for name in ("remove", "unlink", "mkdir", "makedirs", "rmdir", "listdir", "path.exists", "path.isfile")
    }
    | {f"tempfile.{name}" for name in ("mkdtemp", "mkstemp", "NamedTemporaryFile", "TemporaryDirectory")}
)


def run_judge(source: bytes, channel: JudgeChannel) -> int:
    """Runs the packed script against the solution at the other end of the channel; reports to standard output.

    Whatever the tests print goes to standard error.
    """
    script = unpack_script(source)
    descriptor = os.dup(1)
    os.dup2(2, 1)
    sys.setrecursionlimit(_RECURSION)
    sys.set_int_max_str_digits(_MAX_DIGITS)
    if isinstance(script, CheckerScript):
        os.write(descriptor, run_checker(script).pack())
        return 0
    hand_backs = HandBacks()
    solution = SolutionClient(channel, hand_backs)
    tally = TestTally(solution, JudgeReport(0), descriptor, script.is_partial, script.keeps_results)
    if isinstance(script, FunctionalScript):
        tally.prepare(lambda: run_functional(script, solution, tally))
    else:
        if script.has_files:
            refuse_unpickling()
        _ScriptRun(script, solution, hand_backs, tally).run()
    tally.finish()
    return 0


def find_free_names(
    trees: Sequence[ast.AST], entry_point: str, known_modules: Collection[str] = sys.stdlib_module_names
) -> dict[str, bool]:
    """The names that the code uses and does not define, and whether each is a module that is known.

    The others are the solution's. A builtin's name is the builtin, unless it is the entry point, or the first function
    called where there is none, and nothing else can be it.
    """
    nodes = [node for tree in trees for node in ast.walk(tree)]
    defined = {name for node in nodes for name in _find_definitions(node)}
    loaded = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)} - defined
    bases = {id(node.value) for node in nodes if isinstance(node, ast.Attribute)}
    used_without_attribute = {node.id for node in nodes if isinstance(node, ast.Name) and id(node) not in bases}
    modules = (loaded - used_without_attribute) & set(known_modules)
    free = {name for name in loaded if not hasattr(builtins, name)}
    if not free - modules:
        free |= {entry_point or _find_tested(trees)} & loaded
    return {name: name in modules for name in sorted(free)}


def _find_tested(trees: Sequence[ast.AST]) -> str:
    """The function that the first assertion calls, where a key names none."""
    asserted = (node.test for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Assert))
    calls = (node.func for test in asserted for node in ast.walk(test) if isinstance(node, ast.Call))
    return next((function.id for function in calls if isinstance(function, ast.Name)), "")


def _find_definitions(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Name(ctx=ast.Store() | ast.Del(), id=name) | ast.arg(arg=name):
            yield name
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            yield name
        case ast.alias(name=module, asname=alias):
            yield alias or module.partition(".")[0]


class _ScriptRun:
    """One run of a script of tests."""

    def __init__(self, script: JudgeScript, solution: SolutionClient, hand_backs: HandBacks, tally: TestTally) -> None:
        self._script = script
        self._solution = solution
        self._tally = tally
        self._hand_backs = hand_backs
        self._name, self._owner = split_entry_point(script.entry_point)
        self._setup = ast.parse(script.setup)
        self._trees = [_without_main(ast.parse(test)) for test in script.tests]
        self._num_tests = {id(tree): self._count_tests(tree) for tree in self._trees}
        self._nodes_of_tree: dict[int, list[ast.AST]] = {}
        module = types.ModuleType(TESTS_MODULE)
        sys.modules[TESTS_MODULE] = module
        self._names: dict[str, Any] = module.__dict__
        self._names["__builtins__"] = builtins
        self._names["__file__"] = f"{os.getcwd()}/{TESTS_MODULE}.py"  # tests look for files beside it
        self._solution.classes = self._names

    def run(self) -> None:
        self._tally.report.num_tests = 1 if self._is_one else sum(self._num_tests.values())
        if not self._tally.prepare(self._prepare):
            return
        for position, tree in enumerate(self._trees):
            if not self._run_tests(tree, f"{TEST_FILE} {position + 1}>") or self._tally.is_over:
                return
        if self._script.calls_check:
            work = lambda: self._names["check"](self._solution.look_up(self._name, self._owner))  # noqa: E731
            self._tally.judge(work) if self._is_one else self._tally.prepare(work)

    @property
    def _is_one(self) -> bool:
        """Whether `check(candidate)` is one test; with partial credit, each statement of it is one."""
        return self._script.calls_check and not (self._script.is_partial and sum(self._num_tests.values()) > 1)

    def _count_tests(self, tree: ast.Module) -> int:
        classes = find_test_classes(tree.body)
        direct = [node for node in tree.body if not (isinstance(node, ast.ClassDef) and node.name in classes)]
        bodies = [direct, *(node.body for node in direct if isinstance(node, ast.FunctionDef) and node.name == "check")]
        if self._script.is_partial and len(self._trees) == 1:
            return sum(classes.values()) + sum(map(_is_one_test, (node for body in bodies for node in body)))
        return sum(classes.values()) + any(map(has_assertion, direct))

    def _prepare(self) -> None:
        """Gives the tests the names that they do not define; runs the setup."""
        trees = [self._setup, *self._trees]
        for tree in trees:
            self._leave_out_missing(tree)
        self._nodes_of_tree = {id(tree): list(ast.walk(tree)) for tree in trees}
        nodes = list(chain.from_iterable(self._nodes_of_tree.values()))
        self._tally.has_files = self._script.has_files
        self._tally.general_doubt = find_doubt(nodes, self._script.has_files)
        self._solution.may_exit = any(isinstance(node, ast.Name) and node.id == "SystemExit" for node in nodes)
        free = find_free_names(trees, self._name, sys.stdlib_module_names | set(self._script.packages))
        classes = [node.name for node in nodes if isinstance(node, ast.ClassDef)]
        if free.keys() & NODE_HELPER_NAMES - {self._name}:
            exec(compile(NODE_HELPERS, f"{TEST_FILE} helpers>", "exec"), self._names)  # noqa: S102 - a constant
            classes += NODE_NAMES
        if classes:
            self._solution.share(classes)
        for name, is_module in free.items():
            if name not in self._names or name == self._name:
                self._names[name] = self._find(name, is_module, nodes)
        self._execute(self._setup, f"{TEST_FILE} setup>")

    def _find(self, name: str, is_module: bool, nodes: Sequence[ast.AST]) -> Any:
        """What a free name means: the usual thing, unless it is the entry point; else the solution's global."""
        if name == self._name and not is_module:
            return self._solution.look_up(name, self._owner)
        if is_module or name in NAMES_OF_TESTS:
            is_usual = not is_module and name not in sys.stdlib_module_names
            return usual_value(name) if is_usual else _module_or_member(name, nodes)
        try:
            return self._solution.look_up(name)
        except NameError:
            if not self._name or name == self._owner:
                raise
            return _Undefined(self._solution, f"the tests use {name!r}, which nobody defines; give it as setup")

    def _leave_out_missing(self, tree: ast.Module) -> None:
        """Takes out imports of what is not here: tests that use it cannot be run, others can."""
        for node in list(tree.body):
            try:
                for module in _imported_modules(node):
                    importlib.import_module(module)
            except ImportError as error:
                tree.body.remove(node)
                self._tally.report.missing.append(str(error.name).partition(".")[0])
                for name in _find_imported(node):
                    self._names[name] = _Undefined(self._solution, explain_own(error))

    def _run_tests(self, tree: ast.Module, file_name: str) -> bool:
        """Whether the tests after this one can run."""
        classes = find_test_classes(tree.body)
        is_test = self._num_tests[id(tree)] > sum(classes.values())
        if self._script.is_partial and len(self._trees) == 1:
            self._names[_ONE_TEST] = self._tally.one_test
            tree, is_test = _with_single_tests(tree), False
        execute = partial(self._execute, tree, file_name)
        if is_test and not self._script.calls_check:
            self._tally.judge(execute)
        elif not self._tally.prepare(execute):
            return False
        for name in classes:
            self._tally.run_test_class(self._names.get(name))
        return True

    def _execute(self, tree: ast.Module, file_name: str) -> None:
        self._hand_backs.add(self._nodes_of_tree[id(tree)], file_name)
        exec(compile(tree, file_name, "exec", dont_inherit=True, optimize=0), self._names)  # noqa: S102 - the purpose


def refuse_unpickling() -> None:
    """From now on this process unpickles no functions and classes: a file may be the solution's, a pickle a program."""

    def refuse(event: str, _: tuple[object, ...]) -> None:
        if event == "pickle.find_class":
            raise PermissionError("a test may unpickle data alone: a pickle of the answer could be a program")

    sys.addaudithook(refuse)


class _Undefined:
    """A name that neither the tests nor the answer define: whoever uses it cannot be judged."""

    def __init__(self, solution: SolutionClient, reason: str) -> None:
        object.__setattr__(self, "_use", partial(solution.refuse, reason))

    def _refuse(self, *_: object, **__: object) -> Any:
        object.__getattribute__(self, "_use")()

    __call__ = __getattr__ = __getitem__ = __iter__ = __len__ = __bool__ = __eq__ = __contains__ = _refuse
    __hash__ = object.__hash__


def find_doubt(nodes: Sequence[ast.AST], has_files: bool) -> str:
    """Why a right answer may fail the tests: what they do in their own process that the solution's does not see."""
    for node in (node for node in nodes if isinstance(node, ast.Call)):
        name = _dotted_name(node.func)
        target = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
        if name in _REPLACING and target != "sys.stdout":
            return f"the tests replace names ({name}), which the solution's process does not see"
        if name in _AWAITING:
            return f"the tests await what the answer returns ({name}), which cannot cross"
        if has_files and name in _UNPICKLING:
            return f"the tests unpickle ({name}), and a pickle of the answer may be a program"
        if name in _SEEDING:
            return f"the tests seed random numbers ({name}), which the solution's process does not see"
        if not has_files and (name in _FILES or (name == "sqlite3.connect" and target != ":memory:")):
            return f"the tests use files ({name}), and have none here (`files` in the key)"
    return ""


def _module_or_member(name: str, nodes: Sequence[ast.AST]) -> Any:
    """`datetime`, say, as the module, or as its class where the code calls it or uses what only that has."""
    module = importlib.import_module(name)
    member = getattr(module, name, None)
    used = {node.attr for node in nodes if isinstance(node, ast.Attribute) and _is_name(node.value, name)}
    is_called = any(isinstance(node, ast.Call) and _is_name(node.func, name) for node in nodes)
    is_member = is_called or any(hasattr(member, each) and not hasattr(module, each) for each in used)
    return member if member is not None and is_member else module


def _dotted_name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted_name(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _imported_modules(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []


def _find_imported(node: ast.stmt) -> list[str]:
    aliases = node.names if isinstance(node, ast.Import | ast.ImportFrom) else []
    return [alias.asname or alias.name.partition(".")[0] for alias in aliases if alias.name != "*"]


def _is_one_test(node: ast.stmt) -> bool:
    return has_assertion(node) and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)


def _with_single_tests(tree: ast.Module) -> ast.Module:
    """The code with each asserting statement, of the top level and of `check`, as a test of its own."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "check":
            node.body = list(map(_as_one_test, node.body))
    tree.body = list(map(_as_one_test, tree.body))
    return ast.fix_missing_locations(tree)


def _as_one_test(node: ast.stmt) -> ast.stmt:
    if not _is_one_test(node):
        return node
    call = ast.Call(ast.Name(_ONE_TEST, ast.Load()), [], [])
    return ast.copy_location(ast.With([ast.withitem(call)], [node]), node)


def _without_main(tree: ast.Module) -> ast.Module:
    """The code without a call of `unittest.main`, which looks for tests elsewhere and exits."""
    tree.body = [node for node in tree.body if not _is_main_call(node)]
    return tree


def _is_main_call(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and _dotted_name(node.value.func) == "unittest.main"
    )
