"""Asks the verifier, the learner and a replica: who they are, whether they take work, who may use them."""

import json
import secrets
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from services.launcher.display.finding import Section
from services.launcher.doctor.probe import ProbeFailed, Question, ServiceAnswer, ServiceProbe
from shared.protocol.message import PROTOCOL_VERSION
from shared.protocol.replica import ReplicaInfo, ReplicaState
from shared.protocol.status import RunStatus
from shared.runtime.middleware import is_loopback
from shared.tree.draw import WeightVersion

_CLOCK_SECONDS = 5.0
_LEFT = {"answer_key": {"gold": "4"}, "kind": "math"}
_ITEMS = [{"id": "right", "response": "\\boxed{4}", **_LEFT}, {"id": "wrong", "response": "\\boxed{5}", **_LEFT}]
_VERDICTS = Question("/v1/verdicts", "POST", json.dumps({"items": _ITEMS, "deadline_seconds": 5}).encode())
_POLICY = Question("/v1/policy")
_STATUS = Question("/v1/status")
_WEIGHTS = Question("/v1/weights/latest", reads_body=False)


@dataclass(frozen=True, slots=True)
class Caller:
    """How services are asked: with which token, and for how long each."""

    token: str | None
    seconds: float

    def probe(self, url: str) -> ServiceProbe:
        return ServiceProbe(url, self.seconds)


@dataclass(frozen=True, slots=True)
class LearnerFacts:
    release: str | None = None
    status: RunStatus | None = None
    seconds_since_step: float | None = None
    bundle_bytes: int | None = None


async def examine_verifier(section: Section, url: str, caller: Caller) -> str | None:
    """Returns its release; None where it was not reached."""
    async with caller.probe(url) as probe:
        health = await _meet(section, probe, "verifier")
        if health is None:
            return None
        await _examine_ready(section, probe, "it judges nothing until then: see its log")
        answer = await _examine_token(section, probe, caller, _VERDICTS)
        if answer is not None:
            _examine_verdicts(section, answer)
        _examine_sandbox(section, health)
        return str(health.get("version", ""))


async def examine_learner(section: Section, url: str, caller: Caller) -> LearnerFacts:
    async with caller.probe(url) as probe:
        health = await _meet(section, probe, "learner")
        if health is None:
            return LearnerFacts()
        if problem := health.get("problem"):
            section.failed("ranks", str(problem), "see IbtpoRankSilent in docs/runbook.md")
        await _examine_ready(section, probe, "it starts or makes its first version: see its log if that lasts")
        release = str(health.get("version", ""))
        answer = await _examine_token(section, probe, caller, _STATUS)
        if answer is None:
            return LearnerFacts(release)
        try:
            status = RunStatus.model_validate_json(answer.body)
        except ValidationError:
            section.failed(
                "status", "its status cannot be read", "it is of another release: upgrade (docs/operations.md)"
            )
            return LearnerFacts(release)
        weights = await _ask(probe, replace(_WEIGHTS, token=caller.token))
        length = "" if weights is None or weights.status != 200 else weights.headers.get("content-length", "")
        num_bytes = int(length) if length.isdigit() and len(length) < 18 else None
        age = health.get("seconds_since_step")
        return LearnerFacts(release, status, float(age) if isinstance(age, int | float) else None, num_bytes)


async def examine_replica(
    section: Section, url: str, caller: Caller, info: ReplicaInfo | None, is_here: bool
) -> tuple[str | None, WeightVersion | None]:
    """Returns its release and the version of its weights. `is_here`: only this machine may reach a loopback address."""
    try:
        probe = caller.probe(url)
    except ValueError as error:
        section.failed("reached", f"its address {error}", "set rollout.url, or leave it out")
        return None, None
    async with probe:
        if is_loopback(probe.host) and not is_here:
            section.warning(
                "address",
                f"it announces {probe.shown}, which on any other machine is that machine itself",
                "start it with url=http://NAME:PORT as the learner reaches it, and host=:: with a token",
            )
        health = await _meet(section, probe, "rollout")
        if health is None:
            return None, None
        if info is None or info.state is ReplicaState.SERVING:
            await _examine_ready(section, probe, "it has no weights of the run, or drains: see its log, and the run's")
        answer = await _examine_token(section, probe, caller, _POLICY)
        return str(health.get("version", "")), _served_version(answer)


def _served_version(answer: ServiceAnswer | None) -> WeightVersion | None:
    try:
        found = {} if answer is None else answer.json_object().get("version")
        return WeightVersion(**found) if found else None
    except (ProbeFailed, TypeError, ValueError):
        return None


async def _ask(probe: ServiceProbe, question: Question) -> ServiceAnswer | None:
    try:
        return await probe.ask(question)
    except ProbeFailed:
        return None


async def _meet(section: Section, probe: ServiceProbe, service: str) -> dict[str, Any] | None:
    """What /healthz says, where that is the service meant and speaks our protocol."""
    section.where = probe.shown
    try:
        answer = await probe.ask(Question("/healthz"))
        health = answer.json_object()
    except ProbeFailed as error:
        section.failed("reached", error.found, error.remedy)
        return None
    name, protocol = health.get("service"), health.get("protocol")
    if name != service:
        what = f"ibtpo's {name}" if protocol is not None and isinstance(name, str) else "no service of ibtpo"
        section.failed("reached", f"it is {what}, not its {service}", "correct host and port; two may be swapped")
        return None
    section.ok("reached", f"answers in {answer.seconds * 1000:.0f} ms")
    if protocol != PROTOCOL_VERSION:
        section.failed(
            "protocol",
            f"it speaks protocol {protocol!r}, this command {PROTOCOL_VERSION}: they cannot work together",
            "bring all services to one release (docs/operations.md, Upgrade)",
        )
    if abs(ahead := answer.clock_ahead_seconds) > _CLOCK_SECONDS:
        section.warning("clock", f"it is {_ahead(ahead)} this machine's", "let NTP set both clocks")
    return health


def _ahead(seconds: float) -> str:
    return f"{abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'}"


async def _examine_ready(section: Section, probe: ServiceProbe, remedy: str) -> None:
    try:
        answer = await probe.ask(Question("/readyz"))
    except ProbeFailed as error:
        section.failed("ready", error.found, error.remedy)
        return
    if answer.status == 200:
        section.ok("ready", "takes work")
    else:
        reason = answer.detail.removeprefix("not ready: ") or f"/readyz answers {answer.status}"
        section.warning("ready", f"not ready: {reason}", remedy)


async def _examine_token(
    section: Section, probe: ServiceProbe, caller: Caller, question: Question
) -> ServiceAnswer | None:
    """Whether a wrong token is refused and ours is taken; the answer to `question` where it was given one."""
    try:
        refused = await probe.ask(replace(question, token=secrets.token_hex(16)))
        if refused.status == 200:
            _note_open(section, probe)
            return refused
        if refused.status not in (401, 403):
            detail = f": {refused.detail}" if refused.detail else ""
            section.warning("token", f"cannot tell: it answers {refused.status}{detail}", "ask again; see its log")
            return None
        if caller.token is None:
            section.failed(
                "token",
                "it wants a token, and none is given here",
                "set IBTPO_TOKEN, or IBTPO_TOKEN_FILE to the file that the services read",
            )
            return None
        answer = await probe.ask(replace(question, token=caller.token))
    except ProbeFailed as error:
        section.failed("token", error.found, error.remedy)
        return None
    if answer.status in (401, 403):
        section.failed(
            "token",
            "it refuses the token given here",
            "give every service the same one, and restart those that were started with another",
        )
        return None
    section.ok("token", "takes the one given here, refuses a wrong one")
    if answer.status != 200:
        section.warning("answer", f"{question.path} answers {answer.status}: {answer.detail}", "see its log")
        return None
    return answer


def _note_open(section: Section, probe: ServiceProbe) -> None:
    if is_loopback(probe.host):
        section.ok("token", "wants none: asked over loopback, which only this machine reaches")
    else:
        section.failed(
            "token",
            f"open: it took a wrong token, so whoever reaches {probe.host} may use it",
            "start it with IBTPO_TOKEN, or IBTPO_TOKEN_FILE (docs/operations.md, Security)",
        )


def _examine_verdicts(section: Section, answer: ServiceAnswer) -> None:
    try:
        verdicts = answer.json_object().get("verdicts")
    except ProbeFailed as error:
        section.failed("judges", error.found, error.remedy)
        return
    found = (
        [one.get("reward") if isinstance(one, dict) else None for one in verdicts] if isinstance(verdicts, list) else []
    )
    if found == [1, 0]:
        section.ok("judges", "a right answer has reward 1, a wrong one 0")
    else:
        section.failed("judges", f"a right and a wrong answer have the rewards {found}", "see its log, and /healthz")


def _examine_sandbox(section: Section, health: dict[str, Any]) -> None:
    """The self-test of the code kind's jail, and what other kinds refuse."""
    kinds = health.get("kinds")
    for kind, state in kinds.items() if isinstance(kinds, dict) else ():
        if isinstance(state, dict) and state.get("refusal"):
            section.failed(f"kind {kind}", str(state["refusal"]), "docs/sandbox.md says what it needs of the machine")
    code = kinds.get("code") if isinstance(kinds, dict) else None
    layers = code.get("layers") if isinstance(code, dict) else None
    if not isinstance(code, dict) or not isinstance(layers, dict) or code.get("refusal"):
        return
    missing = [f"{name}: {state}" for name, state in layers.items() if not str(state).startswith("on")]
    if not code.get("isolated"):
        section.failed(
            "sandbox", "programs in answers run without a jail", "set code.sandbox=jail, where the kernel allows it"
        )
    elif missing:
        section.ok("sandbox", f"self-test passed; on {len(layers) - len(missing)} layers, without {'; '.join(missing)}")
    else:
        section.ok("sandbox", f"self-test passed with {', '.join(layers)}")
