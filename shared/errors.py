"""The errors that a service answers with; each message says the value and the remedy."""

import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from traceback import walk_tb
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the sandbox runs with the standard library alone
    from pydantic import ValidationError

_MAX_CHARACTERS = 500
_HOME = Path(__file__).parents[1]
_NOT_THE_USERS = (*(f"{_HOME / name}/" for name in ("shared", "services", "ibtpo")), sysconfig.get_path("stdlib"), "<")


class IbtpoError(Exception):
    """An error with an answer: `status` is the HTTP status it maps to, `title` its short name."""

    status = HTTPStatus.INTERNAL_SERVER_ERROR
    title = "internal error"


class InvalidInput(IbtpoError):
    """The caller sent something that can never succeed as it is."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    title = "invalid input"


class Unauthorized(IbtpoError):
    """The bearer token is missing or wrong."""

    status = HTTPStatus.UNAUTHORIZED
    title = "unauthorized"


class Conflict(IbtpoError):
    """The request contradicts what is already there: an older version, a second owner."""

    status = HTTPStatus.CONFLICT
    title = "conflict"


class TooLarge(IbtpoError):
    """The body is larger than this service takes."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    title = "too large"


class Overloaded(IbtpoError):
    """A bounded queue is full; try again later."""

    status = HTTPStatus.TOO_MANY_REQUESTS
    title = "overloaded"


class Unavailable(IbtpoError):
    """This service, or one it needs, cannot answer now; a later try may succeed."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    title = "unavailable"


class Unreachable(Unavailable):
    """There is no connection to a service, or it broke before the answer was complete."""


class DeadlineExceeded(Unavailable):
    """A service did not answer within the caller's deadline."""


class MalformedAnswer(Unavailable):
    """A service reported success, but its answer cannot be read."""


class MissingPackage(IbtpoError, ImportError):
    """A package is not installed that only some installations need."""

    status = HTTPStatus.NOT_IMPLEMENTED
    title = "missing package"


@contextmanager
def explain_missing_packages(extra: str = "local") -> Iterator[None]:
    """Raises MissingPackage for a package of another project that the block imports and that is not installed: the
    extra `extra` brings it."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "ibtpo", "services", "shared"):
            raise
        raise MissingPackage(f"{package} is not installed here: pip install 'ibtpo[{extra}]'") from error


def first_reason(error: "ValidationError") -> str:
    """`field: what is wrong` of pydantic's first complaint."""
    return reasons(error).partition("; ")[0]


def reasons(error: "ValidationError") -> str:
    """`field: what is wrong` of each of pydantic's complaints."""
    found = (
        (".".join(map(str, one["loc"])), one["msg"].removeprefix("Value error, "))
        for one in error.errors(include_url=False)
    )
    return "; ".join(f"{field}: {message}" if field else message for field, message in found)


def shorten(text: str) -> str:
    """`text`, cut with an ellipsis when it is long."""
    return text if len(text) <= _MAX_CHARACTERS else text[: _MAX_CHARACTERS - 1] + "…"


def describe(error: BaseException) -> str:
    """An error of the user's own code on one line: what it is, and the line of that code which it came from."""
    try:
        said = " ".join(f"{type(error).__name__}: {error}".split())
    except Exception:  # noqa: BLE001 - a str of theirs may raise anything
        said = type(error).__name__
    place = place_of(error)
    return f"{shorten(said)} ({place})" if place else shorten(said)


def place_of(error: BaseException) -> str:
    """`file.py:line` of the user's own code in which an error arose; empty where none of it was at work."""
    frames = [(frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__)]
    theirs = [one for one in frames if not one[0].startswith(_NOT_THE_USERS) and "/site-packages/" not in one[0]]
    return f"{Path(theirs[-1][0]).name}:{theirs[-1][1]}" if theirs else ""
