"""Requests as SGLang's JSON, and its answers as completions or errors (docs/sglang.md, The contract)."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from itertools import pairwise
from math import isfinite
from typing import Any

from services.rollout.engines.engine import Completion, EngineLimits, Request, Sampling
from shared.errors import IbtpoError, InvalidInput, MalformedAnswer, Overloaded, Unavailable, shorten
from shared.tree.draw import Finish, VersionSpan, WeightVersion

GREEDY_BELOW = 1e-6
"""The server samples greedily at lower temperatures."""
MASK_TOKENS = 4096
"""The largest top_k for which the server returns renormalised log-probabilities (its --sampling-mask-max-tokens)."""
_LEAST_PROBABILITY = 1e-38
"""Of a float32; a smaller one reads 0."""
ONLY_FIRST_AND_LAST = 1 << 30
"""A stream interval with two events: the first token and the end."""


class Aborted(Unavailable):
    """The server dropped the request; its HTTP status is 200 then."""


def check_request(request: Request, limits: EngineLimits) -> None:
    """InvalidInput for a request that the server would refuse, silently cut short, or crash on."""
    limits.check(request)
    if any(not 0 <= token < limits.vocab_size for token in request.stop_ids):
        raise InvalidInput(f"stop ids {sorted(request.stop_ids)} exceed the vocabulary [0, {limits.vocab_size})")
    sampling = request.sampling
    check_temperature(sampling.temperature)
    if sampling.top_k == 1 and sampling.temperature > 0:
        raise InvalidInput(
            "top_k 1 with a temperature gives log-probabilities that depend on the rest of the batch: use temperature 0"
        )


def check_temperature(temperature: float) -> None:
    """InvalidInput for one that the server takes for 0."""
    if 0 < temperature < GREEDY_BELOW:
        raise InvalidInput(f"SGLang samples greedily at temperature {temperature}: use 0, or at least {GREEDY_BELOW}")


def encode_request(
    request: Request, rid: str, version: WeightVersion, *, stream: bool, dp: int = 1, entropy_top_k: int = 1
) -> bytes:
    """The request's JSON. The weights' version partitions the cache, so that no stale prefix is used. Of `dp` copies of
    the model, each with its own cache, one serves all requests of a group. Entropies are bounded by `entropy_top_k`
    tokens."""
    sampling = request.sampling
    top_k = _usable_top_k(sampling)
    body: dict[str, Any] = {
        "rid": rid,
        "input_ids": request.token_ids,
        "sampling_params": _sampling_params(request, top_k, stream=stream),
        "return_logprob": True,
        "extra_key": str(version),
    }
    if sampling.cuts_support and top_k > 0:
        body["return_sampling_mask"] = True
    if request.with_entropies:
        body["top_logprobs_num"] = entropy_top_k
    if stream:
        body["stream"] = True
    if dp > 1:
        body["routed_dp_rank"] = request.group % dp
    return json.dumps(body, separators=(",", ":")).encode()


def _sampling_params(request: Request, top_k: int, *, stream: bool) -> dict[str, Any]:
    sampling = request.sampling
    params: dict[str, Any] = {"max_new_tokens": request.max_tokens, "temperature": sampling.temperature}
    if sampling.cuts_support:
        params |= {"top_p": sampling.top_p, "top_k": top_k or -1}
    # ignore_eos disables stop_token_ids too, so it only serves for "no stop at all"
    params |= {"stop_token_ids": sorted(request.stop_ids)} if request.stop_ids else {"ignore_eos": True}
    if stream:
        params["stream_interval"] = ONLY_FIRST_AND_LAST
    return params


def _usable_top_k(sampling: Sampling) -> int:
    """top_k; 0 if it is off or too large for the server to return the support."""
    return sampling.top_k if sampling.top_k <= MASK_TOKENS else 0


def decode_completion(answer: Mapping[str, Any], request: Request) -> Completion:
    """The completion in a successful answer. Raises Aborted or MalformedAnswer if there is none."""
    with reading(answer) as meta:
        token_ids = tuple(answer["output_ids"])
        logprobs = _logprobs(meta["output_token_logprobs"], token_ids)
        return Completion(
            token_ids=token_ids,
            logprobs=logprobs,
            sampling_logprobs=_sampling_logprobs(meta, len(token_ids)) if request.sampling.cuts_support else None,
            spans=_spans(meta["weight_versions"], len(token_ids)),
            finish=_finish(meta["finish_reason"]),
            cached_tokens=int(meta["cached_tokens"]),
            entropies=_entropies(meta["output_top_logprobs"], len(token_ids)) if request.with_entropies else None,
        )


@contextmanager
def reading(answer: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The answer's `meta_info`. Aborted if the server dropped the request, MalformedAnswer for what the block cannot
    read in it."""
    try:
        meta = answer["meta_info"]
        _finish(meta["finish_reason"])
        yield meta
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise MalformedAnswer(f"SGLang's answer cannot be read: {error!r} in {shorten(str(answer))}") from error


def _finish(reason: Mapping[str, Any]) -> Finish:
    match reason["type"]:
        case "stop":
            return Finish.STOP
        case "length":
            return Finish.LENGTH
        case "abort":
            raise Aborted(f"SGLang dropped the request: {reason.get('message') or 'aborted'}")
        case other:
            raise ValueError(f"finish reason {other!r}")


def _logprobs(entries: Sequence[Sequence[Any]], token_ids: tuple[int, ...]) -> tuple[float, ...]:
    if not token_ids or tuple(entry[1] for entry in entries) != token_ids:
        raise ValueError(f"{len(token_ids)} output_ids and log-probabilities of {len(entries)} other tokens")
    return require_finite([entry[0] for entry in entries])


def _sampling_logprobs(meta: Mapping[str, Any], num_tokens: int) -> tuple[float, ...] | None:
    """Under the distribution that was sampled from, if the server returns them."""
    values = meta.get("output_token_sampling_logprobs")
    if values is None:
        return None
    if len(values) != num_tokens:
        raise ValueError(f"{num_tokens} tokens and {len(values)} sampling log-probabilities")
    return require_finite(values)


def _entropies(entries: Sequence[Sequence[Sequence[Any]]], num_tokens: int) -> tuple[float, ...]:
    if len(entries) != num_tokens or not all(entries):
        raise ValueError(f"{num_tokens} tokens and the likeliest tokens of {len(entries)}")
    return tuple(bound_entropy(require_finite([logprob for logprob, *_ in likeliest])) for likeliest in entries)


def bound_entropy(logprobs: Sequence[float]) -> float:
    """The least entropy of a distribution with these likeliest tokens, in nats (METHOD, S-2b): what remains is at most
    as likely, token by token, as the last of them."""
    probs = [math.exp(logprob) for logprob in logprobs]
    known = -sum(prob * logprob for prob, logprob in zip(probs, logprobs, strict=True))
    rest = 1.0 - math.fsum(probs)
    if rest <= 0.0:
        return max(known, 0.0)
    return known - rest * math.log(max(min(*probs, rest), _LEAST_PROBABILITY))


def require_finite(values: Sequence[Any]) -> tuple[float, ...]:
    """The numbers; ValueError if one is not finite."""
    numbers = tuple(map(float, values))
    if not all(map(isfinite, numbers)):
        raise ValueError("a log-probability is not finite")
    return numbers


def _spans(entries: Sequence[Mapping[str, Any]], num_tokens: int) -> tuple[VersionSpan, ...]:
    spans = tuple(
        VersionSpan(WeightVersion.parse(entry["version"]), int(entry["start"]), int(entry["end"]))
        for entry in entries
        if entry["start"] < entry["end"]
    )
    edges = (0, *(span.end for span in spans))
    starts = (*(span.start for span in spans), num_tokens)
    if edges != starts or any(a >= b for a, b in pairwise(edges)):
        raise ValueError(f"version spans do not partition {num_tokens} tokens")
    return spans


def error_for_status(status: int, body: bytes) -> IbtpoError:
    message = f"SGLang answered {status}: {read_message(body)}"
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return Overloaded(message)
    if status in (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY):
        return InvalidInput(message)
    return Unavailable(message)


def read_message(body: bytes) -> str:
    """The text in {"error": {"message"}}, {"error": "text"}, {"message"} or {"detail"}; else the body itself."""
    try:
        read = json.loads(body)
    except ValueError:
        read = None
    if isinstance(read, dict):
        error = read.get("error")
        found = error.get("message") if isinstance(error, dict) else error
        found = found or read.get("message") or read.get("detail")
        if found:
            return shorten(str(found))
    return shorten(body.decode("utf-8", "replace")) or "nothing"


def parse_last_event(body: bytes) -> dict[str, Any]:
    """The last event of a stream; an error in it is raised as by `error_for_status`."""
    events = [line[6:] for line in body.split(b"\n") if line.startswith(b"data: ") and line != b"data: [DONE]"]
    if not events:
        raise MalformedAnswer("SGLang's stream ended without an event")
    return parse_object(events[-1])


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object in a successful answer; an error in it is raised as by `error_for_status`."""
    try:
        answer = json.loads(body)
    except ValueError as error:
        raise MalformedAnswer(f"SGLang's answer is not JSON: {shorten(str(body))}") from error
    if not isinstance(answer, dict):
        raise MalformedAnswer(f"SGLang's answer is not an object: {shorten(str(answer))}")
    if "error" in answer:
        code = answer["error"].get("code") if isinstance(answer["error"], dict) else None
        raise error_for_status(code if isinstance(code, int) else HTTPStatus.INTERNAL_SERVER_ERROR, body)
    return answer
