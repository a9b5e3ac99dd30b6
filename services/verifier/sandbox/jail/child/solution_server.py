"""The solution's side of the channel: answers calls of its functions with plain data."""

import builtins
from collections.abc import Mapping
from typing import Any

from services.verifier.sandbox.jail.child.judge_channel import JudgeChannel
from services.verifier.sandbox.jail.child.plain_data import NotPlain

# Replies: ("value", v), ("raised", type, message), ("object", description), ("callable",), ("missing",).
Reply = tuple[Any, ...]


def serve_solution(names: Mapping[str, Any], channel: JudgeChannel) -> None:
    """Answers until the judge is gone."""
    while True:
        try:
            kind, name, arguments, keywords = channel.receive()
        except EOFError:
            return
        _reply(channel, _look_up(names, name) if kind == "get" else _call(names, name, arguments, keywords))


def _look_up(names: Mapping[str, Any], name: str) -> Reply:
    if name not in names:
        return ("missing",)
    return ("callable",) if callable(names[name]) else ("value", names[name])


def _call(names: Mapping[str, Any], name: str, arguments: list[Any], keywords: dict[str, Any]) -> Reply:
    try:
        return ("value", names[name](*arguments, **keywords))
    except BaseException as error:  # noqa: BLE001 - whatever it raises, also SystemExit, is the call's result
        return ("raised", _builtin_name(type(error)), str(error)[:500])


def _builtin_name(kind: type) -> str:
    """The nearest builtin class, which is all that the judge can raise again."""
    return str(next(base.__name__ for base in kind.__mro__ if getattr(builtins, base.__name__, None) is base))


def _reply(channel: JudgeChannel, reply: Reply) -> None:
    try:
        channel.send(reply)
    except NotPlain as error:
        channel.send(("object", str(error)))
    except BaseException as error:  # noqa: BLE001 - iterating a lazy result runs more of the solution
        channel.send(("raised", _builtin_name(type(error)), ""))
