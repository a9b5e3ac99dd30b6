"""What the address of a service may be: an HTTP URL with a host, an IPv6 address in brackets."""

import ipaddress
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator

_EXAMPLE = "write http://HOST:PORT, an IPv6 address in brackets: http://[fd00::7]:8001"


def check_url(url: str) -> str:
    """The URL, with brackets around an IPv6 address that lacks them, as in a manifest's `http://$(POD_IP):8001`.
    ValueError for what is no URL of a service."""
    try:
        parts = urlsplit(url.strip())
        bracketed = parts._replace(netloc=_bracketed(parts.netloc))
        is_complete = bracketed.scheme in ("http", "https") and bool(bracketed.hostname) and bracketed.port != 0
    except ValueError as error:
        raise ValueError(f"is no URL of a service ({error}); {_EXAMPLE}") from error
    if not is_complete:
        raise ValueError(f"is no URL of a service; {_EXAMPLE}")
    return SplitResult.geturl(bracketed)


def without_secrets(url: str) -> str:
    """The URL without what may hold a password or a key: its user and its query."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def with_port(host: str, port: int | str) -> str:
    """`host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _bracketed(netloc: str) -> str:
    """What follows the last colon is the port."""
    host, _, port = netloc.rpartition(":")
    if ":" not in host or "[" in host or "@" in host:
        return netloc
    return with_port(str(ipaddress.IPv6Address(host)), port)


ServiceUrl = Annotated[str, AfterValidator(check_url)]
"""A field for one."""
OptionalUrl = Annotated[str, AfterValidator(lambda url: url and check_url(url))]
"""A field for one, or for an empty text."""
