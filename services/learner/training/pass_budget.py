"""How many tokens a pass may have: halved where one runs out of memory."""

from services.learner.training.dealing import Share
from shared.errors import InvalidInput
from shared.runtime.logs import event_logger

log = event_logger(__name__)
_REMEDIES = "set activation_checkpointing=true or precision=bfloat16, or lower growth.max_tokens"


class PassBudget:
    """Begins with `micro_batch_tokens`, or with None, the default. What did not fit once is not tried again by this
    process."""

    def __init__(self, num_tokens: int | None) -> None:
        self.num_tokens = num_tokens
        self._retries = 0

    def take_retries(self) -> int:
        """How often it was halved since the last call."""
        retries, self._retries = self._retries, 0
        return retries

    def shrink(self, share: Share, longest: int, shortage: str) -> None:
        """Halves what passes may have, after one of `share` ran out of memory. InvalidInput where that cannot help, as
        the `longest` trajectory alone is too long."""
        largest, said = _largest_pass(share), _first_line(shortage)
        if largest <= longest:
            raise InvalidInput(
                f"a pass over one trajectory of {longest} tokens ran out of memory ({said}): {_REMEDIES}"
            )
        half = max(min(self.num_tokens or largest, largest) // 2, longest)
        log.warning("out_of_memory", pass_tokens=largest, next_pass_tokens=half, reason=said)
        self.num_tokens = half
        self._retries += 1

    @staticmethod
    def refusal(share: Share, shortage: str) -> InvalidInput:
        """The error of a rank that ran out of memory while others wait for it in the midst of the pass."""
        largest = _largest_pass(share)
        return InvalidInput(
            f"a pass of {largest} tokens ran out of memory ({_first_line(shortage)}): set "
            f"objective.micro_batch_tokens={max(1, largest // 2)}; where a trajectory is longer than that, {_REMEDIES}"
        )


def _largest_pass(share: Share) -> int:
    return max((one.rows.token_ids_RS.numel() for one in share.micro_batches), default=0)


def _first_line(shortage: str) -> str:
    return (shortage.splitlines() or ["no reason given"])[0][:200]
