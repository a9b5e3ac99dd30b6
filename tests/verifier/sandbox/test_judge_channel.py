"""The channel between a solution and its judge, and both ends of it, in one process."""

import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from services.verifier.sandbox.jail.child.judge_channel import JudgeChannel
from services.verifier.sandbox.jail.child.plain_data import MAX_BYTES, Malformed, NotPlain
from services.verifier.sandbox.jail.child.remote_objects import RemoteFunction, RemoteObject
from services.verifier.sandbox.jail.child.solution_client import (
    ObjectForData,
    ResultTooLarge,
    SolutionClient,
    SolutionError,
    SolutionGone,
    UnsupportedTest,
)
from services.verifier.sandbox.jail.child.solution_server import serve_solution

Ends = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    left, right = socket.socketpair()
    with left, right:
        yield left, right


def _channels(ends: Ends) -> tuple[JudgeChannel, JudgeChannel]:
    return JudgeChannel(ends[0].fileno()), JudgeChannel(ends[1].fileno())


def test_values_of_any_size_cross(ends: Ends) -> None:
    left, right = _channels(ends)
    large = {"x": ["y" * 100] * 30_000, 1: (None, 2.5)}
    sending = threading.Thread(target=left.send, args=(large,))
    sending.start()
    assert right.receive() == large
    sending.join()


def test_what_is_not_plain_is_not_sent(ends: Ends) -> None:
    left, right = _channels(ends)
    with pytest.raises(NotPlain):
        left.send([1, object()])
    left.send(2)
    assert right.receive() == 2


def test_a_closed_end_is_the_end_also_in_the_midst_of_a_value(ends: Ends) -> None:
    _, right = _channels(ends)
    ends[0].send(struct.pack("<I", 10) + b"abc")
    ends[0].close()
    for _ in range(2):
        with pytest.raises(EOFError):
            right.receive()


@pytest.mark.parametrize("frame", [struct.pack("<I", MAX_BYTES + (2 << 20)), struct.pack("<I", 3) + b"abc"])
def test_a_frame_that_is_no_value_is_malformed(ends: Ends, frame: bytes) -> None:
    _, right = _channels(ends)
    ends[0].send(frame)
    with pytest.raises(Malformed):
        right.receive()


def _fail(error: BaseException) -> None:
    raise error


class _Unheard(ValueError):
    pass


class _Agreeable:
    """Says what anybody wants to hear."""

    def __init__(self, x: int = 1) -> None:
        self.x = x

    __eq__ = __contains__ = __lt__ = lambda *_: True
    __sub__ = __rsub__ = lambda *_: 0
    __hash__ = object.__hash__

    def count(self) -> Any:
        return 5

    def startswith(self, _: str) -> bool:
        return True

    def itself(self) -> "_Agreeable":
        return self


NAMES: dict[str, Any] = {
    "add": lambda a, b=1: a + b,
    "make": object,
    "fail": lambda: _fail(KeyError("k")),
    "leave": lambda: _fail(SystemExit(3)),
    "fail_strangely": lambda: _fail(_Unheard("x")),
    "lazy": lambda: (1 // (2 - i) for i in range(5)),
    "LIMIT": 7,
    "thing": object(),
    "Agreeable": _Agreeable,
    "agree": _Agreeable,
    "get_class": lambda: _Agreeable,
    "make_agreeable": lambda: _Agreeable(),
    "endless": lambda: iter(int, 1),
    "sort": lambda values: values.sort(),
}


@pytest.fixture
def solution(ends: Ends) -> Iterator[SolutionClient]:
    judge, served = _channels(ends)
    serving = threading.Thread(target=serve_solution, args=(NAMES, served))
    serving.start()
    yield SolutionClient(judge)
    ends[0].shutdown(socket.SHUT_RDWR)
    serving.join()


def test_functions_are_called_and_values_read(solution: SolutionClient) -> None:
    add = solution.look_up("add")
    assert isinstance(add, RemoteFunction)
    assert (add(2, b=5), add(2), solution.look_up("LIMIT")) == (7, 3, 7)
    assert solution.num_answers == 2
    with pytest.raises(NameError, match="name 'subtract' is not defined"):
        solution.look_up("subtract")


def test_exceptions_come_over_as_their_builtin_class_and_never_end_the_judge(solution: SolutionClient) -> None:
    with pytest.raises(KeyError):
        solution.look_up("fail")()
    with pytest.raises(SolutionError, match="SystemExit: 3"):
        solution.look_up("leave")()
    with pytest.raises(ValueError, match="x") as caught:
        solution.look_up("fail_strangely")()
    assert caught.type.__name__ == "_Unheard"
    with pytest.raises(ZeroDivisionError):
        solution.look_up("lazy")()


@pytest.mark.parametrize("look", [lambda s: s.look_up("thing"), lambda s: s.look_up("make_agreeable")()])
def test_an_object_that_was_a_result_agrees_with_nothing(solution: SolutionClient, look: Any) -> None:
    result = look(solution)
    assert isinstance(result, RemoteObject)
    assert repr(result).startswith("<an object of type ")
    assert result != 1
    assert result == result
    as_data = [
        lambda: 1 in result,
        lambda: result < 1,
        lambda: abs(result - 1),
        lambda: abs(result),
        lambda: 1 - result,
    ]
    otherwise = [
        lambda: bool(result),
        lambda: result.startswith("x"),
        lambda: result == object(),
        lambda: result == solution.look_up("make_agreeable")(),
    ]
    for use in as_data + otherwise:
        solution.ending = None
        with pytest.raises(ObjectForData if use in as_data else UnsupportedTest, match="an object of type"):
            use()
        assert solution.ending is not None, "also where a test swallows it"


def test_an_object_that_the_test_made_does_all_that_its_class_defines(solution: SolutionClient) -> None:
    made = solution.look_up("Agreeable")(x=5)
    assert made.x == 5
    made.x = [6]
    assert made.x == [6]
    another = solution.look_up("Agreeable")()
    assert (another in made, made < another, made - another, made.count()) == (True, True, 0, 5)
    assert made is not None
    for use in (lambda: made == 5, lambda: 1 in made, lambda: made < 2, lambda: made - 3, lambda: made.isdigit()):
        with pytest.raises(UnsupportedTest):
            use()
    itself = made.itself()
    assert itself == made
    with pytest.raises(UnsupportedTest):
        abs(itself - another)
    for not_made in (solution.look_up("agree")(), solution.look_up("get_class")()()):
        with pytest.raises(UnsupportedTest):
            not_made.startswith("x")
    with pytest.raises(AttributeError):
        _ = made.y
    assert isinstance(made, solution.look_up("Agreeable"))


def test_what_is_endless_equals_nothing_and_is_of_no_use(solution: SolutionClient) -> None:
    result = solution.look_up("endless")()
    assert result != 1
    with pytest.raises(ResultTooLarge, match="more than 1000000 items"):
        list(result)


def test_a_test_that_needs_more_than_calls_is_unsupported(solution: SolutionClient) -> None:
    with pytest.raises(UnsupportedTest, match="the test passes an object of type function"):
        solution.look_up("add")(lambda: 1)
    with pytest.raises(UnsupportedTest, match=r"the test uses 'cache' of a function"):
        _ = solution.look_up("add").cache


@pytest.mark.parametrize("reply", [("value", 1), ("value",), ("other", 1), (), 7, ["value", 1]])
def test_a_reply_of_another_shape_ends_the_tests(ends: Ends, reply: Any) -> None:
    judge, forged = _channels(ends)
    forged.send(reply)
    with pytest.raises(SolutionGone, match="malformed answer"):
        SolutionClient(judge).look_up("add")


def test_a_solution_that_is_gone_ends_the_tests(ends: Ends) -> None:
    judge, _ = _channels(ends)
    ends[1].close()
    with pytest.raises(SolutionGone, match="its process ended"):
        SolutionClient(judge).look_up("add")
