"""Scores as SGLang's JSON, and its answers as log-probabilities (docs/sglang.md, Scores)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from services.rollout.engines.engine import EngineLimits, NotFinite, ScoreRequest, TokenScores
from services.rollout.engines.sglang import wire_format as wire
from shared.errors import InvalidInput
from shared.tree.draw import WeightVersion

MOST_SINGLE_TOKENS = 1024
"""That are scored by requests of their own: each sends all tokens before it."""
FAINTEST = -87.3
"""At temperatures other than 1 the server takes the logarithm of a float32 softmax, which loses what is smaller."""


@dataclass(frozen=True, slots=True)
class OneToken:
    """The score of one token of a continuation."""

    logprob: float
    version: WeightVersion
    cached_tokens: int


def check_score(request: ScoreRequest, limits: EngineLimits) -> None:
    """InvalidInput for what the server would refuse or crash on: it takes no input as long as its limit."""
    limits.check_score(request)
    wire.check_temperature(request.temperature)
    if request.scale != 1.0 and (num_tokens := len(request.continuation)) > MOST_SINGLE_TOKENS:
        raise InvalidInput(
            f"SGLang scores each token by itself at temperature {request.temperature:g}, at most {MOST_SINGLE_TOKENS} "
            f"of them, not {num_tokens}: score them in parts, or at temperature 1"
        )
    if (length := len(request.token_ids) + len(request.continuation)) == limits.context_length:
        raise InvalidInput(f"SGLang scores at most {limits.context_length - 1} tokens, not {length}: leave one out")


def encode_score(request: ScoreRequest, rid: str, version: WeightVersion, *, dp: int = 1) -> bytes:
    """One request for a whole continuation, at temperature 1. The log-probabilities that the server gives of an input
    are never scaled; they begin at the prefix's last token, so that all before it may come from the cache."""
    body = _body(request, len(request.continuation), rid, version, dp)
    body["logprob_start_len"] = len(request.token_ids) - 1
    body["sampling_params"] = {"max_new_tokens": 0}
    return json.dumps(body, separators=(",", ":")).encode()


def encode_token(request: ScoreRequest, index: int, rid: str, version: WeightVersion, *, dp: int = 1) -> bytes:
    """One request for the token at `index` of a continuation, at any temperature: a token is sampled in its place, and
    the server says how likely the given one was."""
    body = _body(request, index, rid, version, dp)
    body["token_ids_logprob"] = [request.continuation[index]]
    body["sampling_params"] = {"max_new_tokens": 1, "temperature": request.scale, "ignore_eos": True}
    return json.dumps(body, separators=(",", ":")).encode()


def _body(request: ScoreRequest, num_given: int, rid: str, version: WeightVersion, dp: int) -> dict[str, Any]:
    body: dict[str, Any] = {
        "rid": rid,
        "input_ids": request.token_ids + request.continuation[:num_given],
        "return_logprob": True,
        "extra_key": str(version),
    }
    if dp > 1:
        body["routed_dp_rank"] = request.group % dp
    return body


def decode_score(answer: Mapping[str, Any], request: ScoreRequest) -> TokenScores:
    """The scores in a successful answer. Raises Aborted or MalformedAnswer if there are none, NotFinite where one is
    NaN: the server writes null for it."""
    with wire.reading(answer) as meta:
        first, *entries = meta["input_token_logprobs"]
        # the server writes 0 for the vocabulary's last token
        if first[0] is not None or any(
            entry[1] not in (token, 0) for entry, token in zip(entries, request.continuation, strict=True)
        ):
            raise ValueError(f"log-probabilities of other tokens than the {len(request.continuation)} given")
        if any(value is None or not isfinite(value) for value, *_ in entries):
            raise NotFinite(f"a log-probability of the {len(entries)} given tokens is not finite: are the weights?")
        logprobs = tuple(float(value) for value, *_ in entries)
        return TokenScores(logprobs, _version(meta), int(meta["cached_tokens"]))


def decode_token(answer: Mapping[str, Any], request: ScoreRequest, index: int) -> OneToken:
    """The score of one token in a successful answer; InvalidInput where the server rounded its probability to 0."""
    with wire.reading(answer) as meta:
        [[[value, token, *_]]] = meta["output_token_ids_logprobs"]
        if token != request.continuation[index]:
            raise ValueError(f"the log-probability of token {token}, not of {request.continuation[index]}")
        [logprob] = wire.require_finite([value])
        found = OneToken(logprob, _version(meta), int(meta["cached_tokens"]))
    if logprob < FAINTEST:
        raise InvalidInput(
            f"token {token}, the {index + 1}. to score, is less likely than e^{FAINTEST} at temperature "
            f"{request.temperature:g}, which SGLang rounds to 0: score at temperature 1, or on the embedded engine"
        )
    return found


def _version(meta: Mapping[str, Any]) -> WeightVersion:
    """The last one that is named: a request without a token is computed anew where the weights change."""
    return WeightVersion.parse(meta["weight_versions"][-1]["version"])
