"""What a token between services may be: a secret, not the word that stands in for one."""

import re
from typing import Annotated

from pydantic import AfterValidator

_STANDS_IN = ("changeme", "changethis", "replaceme", "replacethis", "placeholder", "yourtoken", "yoursecret")
_BRACKETS = re.compile(r"<.*>|\$?\{.*\}|\$\(.*\)|%.*%|\[.*\]|__.*__", re.DOTALL)
_REMEDY = (
    "give all services one secret of your own, for example from `openssl rand -hex 32`, in IBTPO_TOKEN or in the file "
    "that IBTPO_TOKEN_FILE names (docs/operations.md, Security)"
)


def check_token(token: str) -> str:
    """The token without the blanks around it. ValueError, without the token, if anybody could guess it."""
    token = token.strip()
    if not token:
        raise ValueError(f"is empty; {_REMEDY}, or leave it out where the service listens on loopback only")
    if not (token.isascii() and token.isprintable()):
        raise ValueError(f"has letters that an HTTP header cannot carry: is its file UTF-16? {_REMEDY}")
    letters = re.sub(r"[^a-z0-9]", "", token.lower())
    is_one_letter = len(token) > 2 and len(set(token)) == 1
    if is_one_letter or _BRACKETS.fullmatch(token) or any(word in letters for word in _STANDS_IN):
        raise ValueError(f"is a placeholder that anybody can guess; {_REMEDY}")
    return token


Token = Annotated[str, AfterValidator(check_token)]
"""A field for one."""
