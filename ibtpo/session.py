"""Grows trees and judges answers through the project's own services, started for one call or for a session."""

import os
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import nullcontext
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from pydantic import ValidationError
from rich.console import Console

from ibtpo.calls import LoopThread
from ibtpo.settings import to_settings
from ibtpo.tree import Tree
from services.demo.task import checkpoint_directory
from services.launcher.commands.grow import GROWTH_SECTIONS, make_problem, make_request, show_progress, shown_prompt
from services.launcher.processes.model_services import ModelServices, ServiceAddresses
from services.launcher.runs.model_files import TokenTable, check_model, read_token_table
from shared.errors import InvalidInput, first_reason
from shared.protocol.grow import GrowthEvent
from shared.protocol.score import ScoredContinuation, ScoringRequest
from shared.protocol.task import Problem
from shared.protocol.verdict import Verdict, VerdictItem

T = TypeVar("T")
Model = str | PathLike[str] | None
Prompt = str | Sequence[Mapping[str, str]] | Mapping[str, Any] | Problem
Key = str | float | Mapping[str, Any]


class Session:
    """A model, a rollout replica that serves it and a verifier, which start with the first call that needs them and
    run until `close`, or the end of the `with` block."""

    def __init__(
        self,
        model: Model = None,
        *,
        rollout_url: str | None = None,
        verifier_url: str | None = None,
        token: str | None = None,
        config: str | PathLike[str] | None = None,
    ) -> None:
        """`model` is a directory, by default the demo's. Services with a URL are used where they run; `config`, a
        preset or a file, has the verifier's own kinds."""
        self.model = check_model(checkpoint_directory() if model is None else Path(model))
        given = ServiceAddresses(rollout_url, verifier_url, token or os.environ.get("IBTPO_TOKEN"))
        self._services = ModelServices(self.model, given, config=None if config is None else str(config))
        self._loop: LoopThread | None = None
        self._tokens: TokenTable | None = None
        self._is_closed = False

    def grow(
        self,
        prompt: Prompt,
        *,
        answer: str | float | None = None,
        key: Mapping[str, Any] | None = None,
        kind: str = "math",
        seed: int = 0,
        progress: bool = True,
        **settings: Any,
    ) -> Tree:
        """One tree of answers to the problem: a text, chat messages, or a row of a data set.

        It is judged where the right `answer` is known, or a whole answer `key` for the `kind`; a row has its own. The
        settings are those of `learner.growth`: `rounds=6`, `sampler="independent"`, `max_tokens=512`.
        """
        problem = self._problem(prompt, answer, key, kind)
        request = make_request(problem, self.model, (f"seed={seed}", *to_settings(settings, GROWTH_SECTIONS, grow)))
        console = Console(stderr=True, force_jupyter=False)
        with show_progress(console) if progress and console.is_terminal else nullcontext(_ignore) as on_event:
            scored = self._call(self._services.grow(request, on_event))
        self._tokens = self._tokens or read_token_table(self.model)
        return Tree(scored, self._tokens, shown_prompt(problem))

    def score_tokens(
        self, prompt: Prompt, continuations: Sequence[str], *, temperature: float = 1.0
    ) -> list[ScoredContinuation]:
        """The log-probability of every token of given texts after the problem, and of each text (`logprob`): nothing is
        sampled. The problem is as for `grow`; a text is made tokens by itself."""
        if isinstance(continuations, str):
            raise InvalidInput(f"several texts are scored: give a list, [{continuations!r}]")
        is_row = isinstance(prompt, Problem | Mapping)
        problem = self._problem(prompt, None, None if is_row else {}, "")  # nothing is judged: no key is wanted
        asked = make_request(problem, self.model, ()).model_dump(include={"prompt", "prompt_ids"})
        items = tuple({**asked, "continuation": text} for text in continuations)
        try:
            request = ScoringRequest.model_validate({"items": items, "temperature": temperature})
        except ValidationError as error:
            raise InvalidInput(f"cannot be scored: {first_reason(error)}") from error
        return list(self._call(self._services.score(request)))

    @overload
    def verify(
        self, response: str, key: Key, *, kind: str = "math", extraction: Sequence[str] = (), prompt: str = ""
    ) -> Verdict: ...
    @overload
    def verify(
        self,
        response: list[str] | tuple[str, ...],
        key: Key,
        *,
        kind: str = "math",
        extraction: Sequence[str] = (),
        prompt: str = "",
    ) -> list[Verdict]: ...
    def verify(
        self,
        response: str | list[str] | tuple[str, ...],
        key: Key,
        *,
        kind: str = "math",
        extraction: Sequence[str] = (),
        prompt: str = "",
    ) -> Verdict | list[Verdict]:
        """The verdict on a response, or on each of several, by the right answer or a whole answer key."""
        if not isinstance(response, str | list | tuple):
            raise InvalidInput(f"a response is a text, or several are a list of texts: {response!r}")
        responses = [response] if isinstance(response, str) else list(response)
        answer_key = _answer_key(key) | ({"extraction": list(extraction)} if extraction else {})
        try:
            items = [
                VerdictItem(id=str(number), kind=kind, response=one, answer_key=answer_key, prompt=prompt)
                for number, one in enumerate(responses)
            ]
        except ValidationError as error:
            raise InvalidInput(f"cannot be judged: {first_reason(error)}") from error
        verdicts = self._call(self._services.judge(items)) if items else ()
        return verdicts[0] if isinstance(response, str) else list(verdicts)

    def close(self) -> None:
        """Stops the services that this session started."""
        self._is_closed = True
        if self._loop is not None:
            self._loop.call(self._services.__aexit__())
            self._loop.close()
            self._loop = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else "open" if self._loop else "not started"
        return f"<Session of {self.model}, {state}>"

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        if self._is_closed:
            work.close()
            raise InvalidInput("this session is closed: make another one")
        if self._loop is None:
            self._loop = LoopThread()
            self._loop.call(self._services.__aenter__())
        return self._loop.call(work)

    def _problem(self, prompt: Prompt, answer: str | float | None, key: Mapping[str, Any] | None, kind: str) -> Problem:
        if isinstance(prompt, Problem | Mapping):
            if answer is not None or key is not None:
                raise InvalidInput("a row of a data set has its own answer key: leave out answer and key")
            return prompt if isinstance(prompt, Problem) else _read_row(prompt)
        if not isinstance(prompt, str):
            prompt = _read_messages(prompt)
        if key is None:
            return make_problem(prompt, self.model, kind, None if answer is None else str(answer))
        if answer is not None:
            raise InvalidInput('give answer, or key, which holds it: {"gold": …}')
        return Problem(id="given", prompt=prompt, kind=kind, answer_key=dict(key))


def grow(
    prompt: Prompt,
    model: Model = None,
    *,
    answer: str | float | None = None,
    key: Mapping[str, Any] | None = None,
    kind: str = "math",
    seed: int = 0,
    progress: bool = True,
    rollout_url: str | None = None,
    verifier_url: str | None = None,
    token: str | None = None,
    **settings: Any,
) -> Tree:
    """Grows one tree: `Session.grow` in a session of its own. A session grows several without starting services anew.

    >>> ibtpo.grow("2+3*4-1*6=", seed=1, rounds=6)  # the demo's model reckons modulo 7
    """
    with Session(model, rollout_url=rollout_url, verifier_url=verifier_url, token=token) as session:
        return session.grow(prompt, answer=answer, key=key, kind=kind, seed=seed, progress=progress, **settings)


@overload
def verify(
    response: str,
    key: Key,
    *,
    kind: str = "math",
    extraction: Sequence[str] = (),
    prompt: str = "",
    verifier_url: str | None = None,
    token: str | None = None,
) -> Verdict: ...
@overload
def verify(
    response: list[str] | tuple[str, ...],
    key: Key,
    *,
    kind: str = "math",
    extraction: Sequence[str] = (),
    prompt: str = "",
    verifier_url: str | None = None,
    token: str | None = None,
) -> list[Verdict]: ...
def verify(
    response: str | list[str] | tuple[str, ...],
    key: Key,
    *,
    kind: str = "math",
    extraction: Sequence[str] = (),
    prompt: str = "",
    verifier_url: str | None = None,
    token: str | None = None,
) -> Verdict | list[Verdict]:
    """Judges a response, or several: `Session.verify` in a session of its own.

    >>> ibtpo.verify(r"so it is \\boxed{\\frac{1}{2}}", "0.5").reward
    1.0
    """
    with Session(verifier_url=verifier_url, token=token) as session:
        return session.verify(response, key, kind=kind, extraction=extraction, prompt=prompt)


def _ignore(event: GrowthEvent) -> None:
    """Shows nothing of a tree's growth."""


def _answer_key(key: Key) -> dict[str, Any]:
    if isinstance(key, Mapping):
        return dict(key)
    if isinstance(key, bool) or not isinstance(key, str | int | float):
        raise InvalidInput(f"the right answer is a text, a number, or a whole answer key: {key!r}")
    return {"gold": str(key)}


def _read_row(row: Mapping[str, Any]) -> Problem:
    try:
        return Problem.model_validate({"id": "given", **row})
    except ValidationError as error:
        raise InvalidInput(
            f"a row of a data set has prompt, kind and answer_key; this one: {first_reason(error)}"
        ) from error


def _read_messages(messages: Sequence[Mapping[str, str]]) -> tuple[dict[str, str], ...]:
    if not isinstance(messages, Sequence) or not messages or not all(isinstance(one, Mapping) for one in messages):
        raise InvalidInput(f"a problem is a text, chat messages, or a row of a data set, not {messages!r}")
    return tuple(dict(one) for one in messages)
