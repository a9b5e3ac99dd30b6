r"""What a gold text says: the answer itself, what is in its boxes, or what follows its `####`."""

from services.verifier.checks.final_answer import final_answer


def gold_text(gold: str, longest: int) -> str | None:
    """The answer that a gold gives; None when there is none, or one longer than `longest`."""
    if "\\boxed" in gold or "\\fbox" in gold or "####" in gold:
        stated = final_answer(gold, longest)
        if stated is not None:
            return ", ".join(stated.stated)
        gold = gold.rpartition("boxed{")[2]  # a box that is not closed
    text = gold.strip()
    return text if text and len(text) <= longest else None
