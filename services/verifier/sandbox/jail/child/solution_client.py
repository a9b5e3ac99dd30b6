"""The judge's side of the channel: asks a solution in another process, and believes only plain data."""

import builtins
import sys
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from services.verifier.sandbox.jail.child.hand_backs import HandBacks
from services.verifier.sandbox.jail.child.judge_channel import JudgeChannel
from services.verifier.sandbox.jail.child.object_graph import (
    content_of,
    find_parts,
    from_graph,
    read_parts,
    to_graph,
    write_parts,
)
from services.verifier.sandbox.jail.child.plain_data import (
    BUILTIN,
    BUILTIN_TYPES,
    Graph,
    Handle,
    Malformed,
    NotPlain,
    builtin_handle,
    encode,
)
from services.verifier.sandbox.jail.child.remote_objects import Remote, RemoteObject, remote_object, remote_of

_REPLY_SIZES = {"value": 3, "raised": 6, "too_large": 2, "missing": 1}
_CONTAINERS = (list, dict, set, deque, bytearray)
_MAX_LOANS = 16
TESTS_MODULE = "tests"
"""`__name__` of the tests' code, and so the module of their classes."""


class UnsupportedTest(BaseException):
    """The test needs what cannot cross. Not an Exception, so that few tests swallow it; the client remembers it."""


class ObjectForData(BaseException):
    """The solution gave an object of its own where the test computes with data. Remembered like UnsupportedTest."""


class SolutionGone(BaseException):
    """The solution's process ended, or broke the rules of the channel."""


class ResultTooLarge(Exception):
    """The solution's result is too large, too deep or endless."""


class SolutionError(Exception):
    """The solution raised something that ends processes."""


class OversizedResult:
    """A result that was too large to cross. It equals nothing, and is not to be used."""

    def __init__(self, description: str) -> None:
        object.__setattr__(self, "_description", description)

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"<{object.__getattribute__(self, '_description')}>"

    def _refuse(self, *_: object) -> NoReturn:
        raise ResultTooLarge(f"the result is {object.__getattribute__(self, '_description')}")

    __bool__ = __len__ = __iter__ = __call__ = __getitem__ = __contains__ = __getattr__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = _refuse


@dataclass(slots=True)
class _Loan:
    """A container of the solution, and its encoding when both sides were last the same."""

    value: Any
    data: bytes


class SolutionClient:
    """Asks the solution over the channel. Counts the answers, and keeps what ended a test that may have swallowed it.

    `classes`: those of the tests, by name; their objects cross by their fields.
    """

    def __init__(self, channel: JudgeChannel, hand_backs: HandBacks | None = None) -> None:
        self._channel = channel
        self._hand_backs = hand_backs or HandBacks()
        self._objects: dict[int, Any] = {}
        self._loans: dict[int, _Loan] = {}
        self._streams = (sys.stdin, sys.stdout, builtins.input)
        self.classes: Mapping[str, Any] = {}
        self.num_answers = 0
        self.ending: UnsupportedTest | ObjectForData | SolutionGone | None = None
        self.doubt = ""
        """Why a test that failed may have failed a right answer."""
        self.may_exit = False
        """Whether the tests know what to do with a SystemExit."""
        channel.replace, channel.resolve = self._replace, self._resolve

    def share(self, class_names: Collection[str]) -> None:
        """Names the classes of the tests, whose objects cross by their fields."""
        self._ask(("share", list(class_names)))

    def look_up(self, name: str, owner: str = "") -> Any:
        """The solution's global, or a method of its class `owner`. NameError if there is none."""
        reply = self._ask(("get", name, owner))
        if reply[0] == "missing":
            raise NameError(f"name '{name}' is not defined", name=name)
        value = self._read(reply)
        # an answer must not be a class where the test means a function: its object could agree with everything
        is_class = isinstance(value, RemoteObject) and remote_of(value).handle.kind == "class"
        is_named = is_class and name.lstrip("_")[:1].isupper()
        return remote_object(self, remote_of(value).handle, is_made=True) if is_named else value

    def solve(self, name: str, owner: str, arguments: list[Any] | dict[str, Any]) -> tuple[Any, Any]:
        """The result of a function for JSON, and its first argument after the call."""
        reply = self._ask(("solve", name, owner, arguments))
        self.num_answers += 1
        if reply[0] == "missing":
            raise NameError(f"name '{name}' is not defined", name=name)
        value = self._read(reply)
        if isinstance(value, OversizedResult):
            return value, None
        if type(value) is not tuple or len(value) != 2:
            self.end("malformed answer")
        return value

    def call(self, remote: Remote, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """The result of a call; raises what it raised. Gives changed arguments back where the test looks at them."""
        options: dict[str, Any] = {}
        wish = self._hand_backs.of_caller()
        if wish is not None:
            options["changes"] = True
        if sys.stdout is not self._streams[1]:
            options["printed"] = True
        if sys.stdin is not self._streams[0]:
            options["stdin"] = sys.stdin.read()
        if builtins.input is not self._streams[2]:
            self.refuse("the test replaces input(), which the solution's process does not see")
        reply = self._ask(("call", remote.handle, list(arguments), keywords, options))
        self.num_answers += 1
        if reply[0] in ("value", "raised"):
            self._take_extras(reply[-1], wish, arguments, keywords)
        return self._read(reply, is_made=remote.handle.kind == "class" and remote.is_made)

    def attribute(self, handle: Handle, name: str) -> Any:
        reply = self._ask(("attribute", handle, name))
        self.num_answers += 1
        return self._borrow(self._read(reply), reply)

    def _borrow(self, value: Any, reply: tuple[Any, ...]) -> Any:
        """A container stays the same object on both sides: what the test does to it is done there, and conversely."""
        number = reply[2].get("loan") if type(reply[2]) is dict else None
        if type(number) is not int or type(value) not in _CONTAINERS:
            return value
        loan = self._loans.get(number)
        if loan is not None and type(loan.value) is type(value):
            return loan.value
        if len(self._loans) >= _MAX_LOANS:
            del self._loans[next(iter(self._loans))]
        self._loans[number] = _Loan(value, encode(value, self._replace))
        return value

    def _give_loans_back(self) -> None:
        for number, loan in self._loans.items():
            data = encode(loan.value, self._replace)
            if data != loan.data:
                loan.data = data
                self._exchange(("write", number, content_of(loan.value)))

    def _renew_loans(self) -> None:
        for number, loan in self._loans.items():
            reply = self._exchange(("read", number))
            if reply[0] == "value" and type(reply[1]) is type(loan.value):
                data = encode(reply[1], self._replace)
                if data != loan.data:
                    loan.data = data
                    write_parts([loan.value], [content_of(reply[1])])

    def set_attribute(self, handle: Handle, name: str, value: Any) -> None:
        self._read(self._ask(("set", handle, name, value)))

    def operate(self, operation: str, *operands: Any) -> Any:
        reply = self._ask(("operate", operation, *operands))
        self.num_answers += 1
        return self._read(reply)

    def is_plain(self, value: Any) -> bool:
        """Whether it is data, and so differs from every object of the solution."""
        try:
            encode(value)
        except NotPlain:
            return False
        return True

    def refuse(self, reason: str) -> NoReturn:
        """Ends the test, which cannot be run here; remembers it, should the test swallow that."""
        self.ending = self.ending or UnsupportedTest(reason)
        raise UnsupportedTest(reason)

    def charge(self, reason: str) -> NoReturn:
        """Ends the test, which the solution's result fails; remembers it, should the test swallow that."""
        self.ending = self.ending or ObjectForData(reason)
        raise ObjectForData(reason)

    def end(self, reason: str) -> NoReturn:
        """Ends the tests: the solution is gone."""
        self.ending = SolutionGone(reason)
        raise self.ending

    def _read(self, reply: tuple[Any, ...], is_made: bool = False) -> Any:
        if reply[0] == "too_large":
            return OversizedResult(str(reply[1]))
        if reply[0] == "missing":
            raise NameError("no such name")
        if reply[0] == "raised":
            raise self._rebuild_error(*reply[1:5])
        value = reply[1]
        # what a call of a class gives is an object that the test made; other results may be the same object
        is_object = is_made and isinstance(value, RemoteObject)
        return remote_object(self, remote_of(value).handle, is_made=True) if is_object else value

    def _ask(self, question: tuple[Any, ...]) -> tuple[Any, ...]:
        if not self._loans:
            return self._exchange(question)
        try:
            self._give_loans_back()
            reply = self._exchange(question)
            self._renew_loans()
        except NotPlain as error:
            self.refuse(f"the test passes {error} to the solution")
        return reply

    def _exchange(self, question: tuple[Any, ...]) -> tuple[Any, ...]:
        if isinstance(self.ending, SolutionGone):
            raise self.ending
        try:
            self._channel.send(question)
            reply = self._channel.receive()
        except NotPlain as error:
            self.refuse(f"the test passes {error} to the solution")
        except (EOFError, OSError):
            self.end("its process ended")
        except Malformed as error:
            self.end(f"malformed answer: {error}")
        if not isinstance(reply, tuple) or not reply or _REPLY_SIZES.get(str(reply[0])) != len(reply):
            self.end("malformed answer")
        return reply

    def _take_extras(
        self, extras: Any, may_write: bool | None, arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> None:
        if type(extras) is not dict:
            self.end("malformed answer")
        printed = extras.get("printed", "")
        if printed and isinstance(printed, str) and sys.stdout is not self._streams[1]:
            sys.stdout.write(printed)
        if may_write is None or "changes" not in extras:
            return
        parts = find_parts([list(arguments), keywords], self._is_node)
        if may_write:
            try:
                write_parts(parts, extras["changes"])
            except Malformed as error:
                self.end(f"malformed answer: {error}")
        elif encode(read_parts(parts), self._replace) != encode(extras["changes"], self._replace):
            self.doubt = "the answer changed an argument that the test looks at beside its result"

    def _replace(self, value: Any) -> Any:
        if type(value) is Handle:
            return value
        if isinstance(value, RemoteObject):
            return remote_of(value).handle
        if type(value).__module__ == "unittest.mock":
            raise NotPlain("a mock, which would be called in another process")
        if (builtin := builtin_handle(value)) is not None:
            return builtin
        if (handle := getattr(value, "_remote_handle", None)) is not None and isinstance(value, type):
            return handle
        return to_graph(value, self._is_node) if self._is_node(value) else value

    def _is_node(self, value: Any) -> bool:
        kind = type(value)
        return kind.__module__ == TESTS_MODULE and self.classes.get(kind.__name__) is kind

    def _resolve(self, value: Handle | Graph) -> Any:
        if isinstance(value, Graph):
            return from_graph(value, self._make_node)
        if value.kind == BUILTIN:
            return BUILTIN_TYPES[value.name]
        if value.number not in self._objects:
            is_error = value.kind == "error"
            self._objects[value.number] = _error_class(value, Exception) if is_error else remote_object(self, value)
        return self._objects[value.number]

    def _make_node(self, class_name: str) -> Any:
        kind = self.classes.get(class_name)
        if not isinstance(kind, type):
            raise TypeError(f"the tests have no class {class_name!r}")
        return object.__new__(kind)

    def _rebuild_error(self, classes: Any, known_name: Any, message: Any, arguments: Any) -> BaseException:
        """The exception as the judge can raise it: never one that ends processes, never one of the judge's own."""
        known = getattr(builtins, str(known_name), None)
        if known is SystemExit and self.may_exit:
            return _from_solution(SystemExit(*(arguments if type(arguments) is list else ())), "SystemExit")
        if not (isinstance(known, type) and issubclass(known, Exception)) or issubclass(known, UnicodeError):
            return _from_solution(SolutionError(f"{known_name}: {message}"), "Exception")
        kind: type = known
        if type(classes) is list and classes and all(isinstance(each, type) for each in classes):
            kind = _derive(classes, known)
        try:
            error = kind(*arguments) if type(arguments) is list else kind(str(message))
        except TypeError:
            error = kind(str(message))
        return _from_solution(error, known.__name__)


def split_entry_point(entry_point: str) -> tuple[str, str]:
    """The name, and the class that `Solution().name` names."""
    owner, _, name = entry_point.rpartition(".")
    return name, owner.removesuffix("()")


def _error_class(handle: Handle, *bases: type) -> type:
    """What stands for an exception class of the solution."""
    return type(handle.name, bases, {"_remote_handle": handle})


def _derive(classes: list[Any], known: type) -> type:
    """The class that stands for the first of `classes`, each derived from the next and the last from `known`."""
    base = known
    for mirror in reversed(classes):
        # the test may have named the class before it was known what it is derived from
        base = mirror if issubclass(mirror, base) else _error_class(mirror._remote_handle, mirror, base)
    return base


def _from_solution(error: BaseException, known_name: str) -> BaseException:
    error.from_solution = known_name  # type: ignore[attr-defined]
    return error
