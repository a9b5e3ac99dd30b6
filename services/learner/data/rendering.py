"""Shows a prompt exactly as the model will read it."""

from services.learner.data.prompting import Prompt, PromptModel
from services.learner.data.report import RenderedPrompt

_ENDS = 4
_MAX_ANSWER = 400


def measure(prompt: Prompt, model: PromptModel | None) -> int:
    """Its tokens; without a model, its characters."""
    if model is not None:
        return len(model.encode(prompt))
    return len(prompt) if isinstance(prompt, str) else sum(len(message["content"]) for message in prompt)


def render(problem_id: str, prompt: Prompt, answer: str, model: PromptModel | None) -> RenderedPrompt:
    answer = answer if len(answer) <= _MAX_ANSWER else answer[:_MAX_ANSWER] + "…"
    if model is None:
        text = (
            prompt if isinstance(prompt, str) else "\n\n".join(f"[{one['role']}]\n{one['content']}" for one in prompt)
        )
        return RenderedPrompt(id=problem_id, text=text, answer=answer)
    token_ids = model.encode(prompt)
    ends = ([(token, model.decode([token])) for token in part] for part in (token_ids[:_ENDS], token_ids[-_ENDS:]))
    first, last = ends
    return RenderedPrompt(
        id=problem_id,
        text=model.decode(token_ids),
        tokens=len(token_ids),
        first_tokens=first,
        last_tokens=last,
        answer=answer,
    )
