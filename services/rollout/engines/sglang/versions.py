"""Which releases of SGLang speak the contract that this engine relies on."""

import re

from shared.errors import Unavailable

OLDEST = (0, 5, 21)
"""0.5.20 dies when weights are replaced while requests wait: it insists on an idle server to empty its cache."""
NEWEST_SEEN = (0, 5, 23)
"""The newest one that the tests ran against; later ones of the same minor series are taken at their word."""


class Unsupported(Unavailable):
    """This SGLang does not do what the engine needs of it."""


def check_version(told: object) -> None:
    """Unsupported, naming what is supported, unless the server's own version is one that is known to work."""
    match = re.match(r"(\d+)\.(\d+)\.(\d+)", told if isinstance(told, str) else "")
    version = tuple(map(int, match.groups())) if match else None
    if version is None or version < OLDEST or version[:2] != OLDEST[:2]:
        oldest, newest = (".".join(map(str, each)) for each in (OLDEST, NEWEST_SEEN))
        raise Unsupported(
            f"this is SGLang {told}; supported are {oldest} to {newest} and later {OLDEST[0]}.{OLDEST[1]} releases, "
            "which replace weights under load and name the weights of every token: install one of these"
        )
