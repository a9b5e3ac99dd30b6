"""Answers a judge's calls of a solution's functions."""

import builtins
from collections.abc import Mapping
from typing import Any

from services.verifier.sandbox.jail.child.judge_channel import JudgeChannel
from services.verifier.sandbox.jail.child.plain_data import NotPlain

# ("value", v), ("raised", type, message), ("object", description), ("callable",) or ("missing",).
_Reply = tuple[Any, ...]


def serve_solution(names: Mapping[str, Any], channel: JudgeChannel) -> None:
    """Answers questions about the solution's globals until the judge is gone."""
    while True:
        try:
            verb, name, arguments, keywords = channel.receive()
        except EOFError:
            return
        _send(channel, _look_up(names, name) if verb == "get" else _call(names, name, arguments, keywords))


def _look_up(names: Mapping[str, Any], name: str) -> _Reply:
    if name not in names:
        return ("missing",)
    return ("callable",) if callable(names[name]) else ("value", names[name])


def _call(names: Mapping[str, Any], name: str, arguments: list[Any], keywords: dict[str, Any]) -> _Reply:
    try:
        return ("value", names[name](*arguments, **keywords))
    except BaseException as error:  # noqa: BLE001 - whatever it raises, also SystemExit, is the call's result
        return ("raised", _builtin_name(type(error)), str(error)[:500])


def _builtin_name(exception: type) -> str:
    """The nearest builtin class, since the judge can raise no other."""
    return str(next(base.__name__ for base in exception.__mro__ if getattr(builtins, base.__name__, None) is base))


def _send(channel: JudgeChannel, reply: _Reply) -> None:
    try:
        channel.send(reply)
    except NotPlain as error:
        channel.send(("object", str(error)))
    except BaseException as error:  # noqa: BLE001 - iterating a lazy result runs more of the solution
        channel.send(("raised", _builtin_name(type(error)), ""))
