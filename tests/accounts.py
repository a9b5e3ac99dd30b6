"""The identity of a run's accounts."""

from shared.protocol.status import Accounts


def is_balanced(accounts: Accounts) -> bool:
    """fed = used + skipped + stale + failed + outstanding."""
    ended = accounts.used + accounts.skipped + accounts.stale + accounts.failed
    return accounts.fed == ended + accounts.outstanding
