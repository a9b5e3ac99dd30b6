#!/opt/ibtpo/bin/python
"""Starts a container's service with the token that all containers share: `ibtpo-token COMMAND…`.

The token of IBTPO_GIVEN_TOKEN_FILE goes to IBTPO_TOKEN_FILE, on a volume of all services. Where it is the repository's
placeholder, the first container to start makes one, and the volume keeps it.
"""

import os
import secrets
import sys
from pathlib import Path

from shared.runtime.config.token import check_token


def share_token(given: Path, shared: Path) -> None:
    """Writes the token to `shared`, for the first time or because another one is given."""
    try:
        token = check_token(given.read_text(encoding="utf-8"))
    except ValueError:
        if shared.exists():
            return
        token = secrets.token_hex(32)
        is_given = False
    else:
        is_given = True
    mine = shared.with_name(f".{secrets.token_hex(8)}")
    mine.write_text(token, encoding="utf-8")
    mine.chmod(0o400)
    try:
        if is_given:
            mine.replace(shared)
        else:
            shared.hardlink_to(mine)  # fails where another container was first
    except FileExistsError:
        pass
    finally:
        mine.unlink(missing_ok=True)


if __name__ == "__main__":
    share_token(Path(os.environ["IBTPO_GIVEN_TOKEN_FILE"]), Path(os.environ["IBTPO_TOKEN_FILE"]))
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - the command of the image
