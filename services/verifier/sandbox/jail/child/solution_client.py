"""The solution as its judge sees it: functions and values in another process."""

import builtins
from typing import Any

from services.verifier.sandbox.jail.child.judge_channel import JudgeChannel
from services.verifier.sandbox.jail.child.plain_data import Malformed, NotPlain, encode

_REPLY_SIZES = {"value": 2, "object": 2, "raised": 3, "callable": 1, "missing": 1}


class UnsupportedTest(BaseException):
    """The test needs the solution's own objects. Not an Exception, so that no test can swallow it."""


class SolutionGone(BaseException):
    """The solution's process ended, or broke the rules of the channel."""


class SolutionError(Exception):
    """The solution raised something that is no builtin exception."""


class OpaqueResult:
    """A result that stayed in the solution's process. It equals no plain value; any other use is an UnsupportedTest."""

    def __init__(self, description: str) -> None:
        object.__setattr__(self, "description", description)

    def __eq__(self, other: object) -> bool:
        try:
            encode(other)
        except NotPlain:
            self._refuse()
        return False

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"<{object.__getattribute__(self, 'description')}>"

    def _refuse(self, *_: object) -> Any:
        raise UnsupportedTest(f"the test uses {object.__getattribute__(self, 'description')}")

    __bool__ = __len__ = __iter__ = __call__ = __getitem__ = __contains__ = __getattr__ = __setattr__ = _refuse


class RemoteFunction:
    """A function of the solution."""

    def __init__(self, solution: "SolutionClient", name: str) -> None:
        self._solution = solution
        self.__name__ = name

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self._solution.call(self.__name__, arguments, keywords)

    def __getattr__(self, name: str) -> Any:
        raise UnsupportedTest(f"the test uses {self.__name__}.{name}")


class SolutionClient:
    """Asks the solution over the channel, and counts the answered calls."""

    def __init__(self, channel: JudgeChannel) -> None:
        self._channel = channel
        self.num_answers = 0

    def call(self, name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """The function's result; raises what it raised."""
        reply = self._ask(("call", name, list(arguments), keywords))
        self.num_answers += 1
        if reply[0] == "raised":
            raise _rebuild_exception(str(reply[1]), str(reply[2]))
        return self._read_value(name, reply)

    def look_up(self, name: str) -> Any:
        """The solution's global: a RemoteFunction, a plain value or an OpaqueResult. NameError if there is none."""
        reply = self._ask(("get", name, [], {}))
        return RemoteFunction(self, name) if reply[0] == "callable" else self._read_value(name, reply)

    def _read_value(self, name: str, reply: tuple[Any, ...]) -> Any:
        if reply[0] == "missing":
            raise NameError(f"name '{name}' is not defined")
        return reply[1] if reply[0] == "value" else OpaqueResult(str(reply[1]))

    def _ask(self, question: tuple[Any, ...]) -> tuple[Any, ...]:
        try:
            self._channel.send(question)
            reply = self._channel.receive()
        except NotPlain as error:
            raise UnsupportedTest(f"the test passes {error} to the solution") from None
        except (EOFError, OSError):
            raise SolutionGone("its process ended") from None
        except Malformed as error:
            raise SolutionGone(f"malformed answer: {error}") from None
        if not isinstance(reply, tuple) or not reply or _REPLY_SIZES.get(str(reply[0])) != len(reply):
            raise SolutionGone("malformed answer")
        return reply


def _rebuild_exception(kind: str, message: str) -> BaseException:
    """The exception as the judge can raise it: never one that ends processes, never one of the judge's own."""
    known = getattr(builtins, kind, None)
    if isinstance(known, type) and issubclass(known, Exception) and not issubclass(known, UnicodeError):
        return known(message)
    return SolutionError(f"{kind}: {message}")
