"""Imports the problems of a run before anything is started for it."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.launcher.runs.model_files import find_model, read_limits
from services.launcher.runs.run_dir import RunDirectory
from services.learner.config import LearnerConfig
from services.learner.data.importer import Listener
from services.learner.data.prompting import PromptModel
from services.learner.data.run_files import import_to_file, imported_file, is_problem_file
from shared.errors import InvalidInput
from shared.protocol.message import JsonObject


def load_prompt_model(model: Path, max_answer_tokens: int, settings: JsonObject) -> PromptModel:
    """How the model in a directory reads prompts, and how long they may be beside an answer."""
    from transformers import AutoTokenizer  # takes seconds, and most commands do not need it

    longest = read_limits(model, max_answer_tokens).context_length - max_answer_tokens
    if longest < 1:
        raise InvalidInput(f"an answer of {max_answer_tokens} tokens fills the context of {model}: lower max_tokens")
    try:
        tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
    except Exception as error:  # transformers raises whatever a wrong value in a file leads to
        raise InvalidInput(f"{model} has no tokenizer that transformers can read: {error}") from error
    return PromptModel.of(tokenizer, longest, settings)


@contextmanager
def import_problems(
    learner: LearnerConfig, run: RunDirectory, listener: Listener, *, resumes: bool
) -> Iterator[Path | None]:
    """Yields a folder with the problems that must be imported, to be moved into the run's; None where there are none to
    import. It is gone when the block ends."""
    is_there = resumes and imported_file(learner.data, run.root / "data", "train").is_file()
    if is_there or all(map(is_problem_file, learner.data)):
        yield None
        return
    run.root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{run.name}.import-", dir=run.root.parent) as name:
        folder = Path(name)
        longest = max(learner.growth.max_tokens, learner.evaluation.max_tokens or 0)
        model = load_prompt_model(find_model(learner.model).directory, longest, learner.chat_template_kwargs)
        path = imported_file(learner.data, folder, "train")
        import_to_file(learner.data, path, model, learner.held_out_sources, listener)
        yield folder


def move_into(folder: Path | None, run: RunDirectory) -> None:
    """Moves imported problems into the run's folder."""
    if folder is not None:
        data = run.root / "data"
        data.mkdir(exist_ok=True)
        for path in folder.iterdir():
            path.replace(data / path.name)
