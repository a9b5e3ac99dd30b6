"""The pure parts of the SGLang engine: JSON read and written, errors, weights checked, command lines."""

import json
import math
import struct
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.rollout.config import SglangConfig
from services.rollout.engines.engine import EngineLimits
from services.rollout.engines.sglang import wire_format as wire
from services.rollout.engines.sglang.bundle import Bundle, has_nonfinite
from services.rollout.engines.sglang.client import check_release
from services.rollout.engines.sglang.connections import Address
from services.rollout.engines.sglang.launch import build_command, build_environment
from shared.errors import IbtpoError, InvalidInput, MalformedAnswer, Overloaded, Unavailable
from shared.tree.draw import VersionSpan, WeightVersion
from shared.weights import write_manifest
from tests.rollout.sglang.conftest import BundleFactory, request

LIMITS = EngineLimits(20, 250)
ANSWER: dict[str, Any] = {
    "output_ids": [5, 6, 1],
    "meta_info": {
        "finish_reason": {"type": "stop", "matched": 1},
        "output_token_logprobs": [[-0.1, 5, None], [-0.2, 6, None], [-0.3, 1, None]],
        "weight_versions": [{"version": "1.1", "start": 0, "end": 2}, {"version": "1.2", "start": 2, "end": 3}],
        "cached_tokens": 2,
    },
}


def changed(**changes: Any) -> dict[str, Any]:
    """The answer with something else in its meta_info, or in place of its tokens."""
    answer = {**ANSWER, "meta_info": {**ANSWER["meta_info"], **changes}}
    if "output_ids" in changes:
        answer["output_ids"] = changes["output_ids"]
    return answer


def test_an_answer_is_read_whole() -> None:
    completion = wire.decode_completion(ANSWER, request())
    assert completion.logprobs == (-0.1, -0.2, -0.3)
    assert completion.spans == (
        VersionSpan(WeightVersion(1, 1), 0, 2),
        VersionSpan(WeightVersion(1, 2), 2, 3),
    )


@pytest.mark.parametrize(
    "answer",
    [
        {},
        changed(finish_reason=None),
        changed(finish_reason={"type": "novel"}),
        changed(output_ids=[]),
        changed(output_ids=[5, 6, 2]),
        changed(output_ids=None),
        changed(output_token_logprobs=[[-0.1, 5, None]]),
        changed(output_token_logprobs=[[None, 5, None], [-0.2, 6, None], [-0.3, 1, None]]),
        changed(output_token_logprobs=[[float("nan"), 5, None], [-0.2, 6, None], [-0.3, 1, None]]),
        changed(weight_versions=[]),
        changed(weight_versions=[{"version": "default", "start": 0, "end": 3}]),
        changed(weight_versions=[{"version": "1.1", "start": 0, "end": 2}]),
        changed(weight_versions=[{"version": "1.1", "start": 1, "end": 3}]),
        changed(cached_tokens=None),
    ],
    ids=str,
)
def test_an_answer_that_contradicts_itself_is_not_believed(answer: dict[str, Any]) -> None:
    with pytest.raises(MalformedAnswer):
        wire.decode_completion(answer, request())


@pytest.mark.parametrize(
    "likeliest",
    [None, [], [[[-0.1, 5, None]]], [[[-0.1, 5, None]], [], [[-0.2, 1, None]]], [[[None, 5, None]]] * 3, [[[]]] * 3],
    ids=str,
)
def test_likeliest_tokens_that_cannot_be_read_are_not_believed(likeliest: Any) -> None:
    asked = replace(request(), with_entropies=True)
    with pytest.raises(MalformedAnswer):
        wire.decode_completion(changed(output_top_logprobs=likeliest), asked)
    with pytest.raises(MalformedAnswer):
        wire.decode_completion(ANSWER, asked)


@given(st.lists(st.floats(0, 12), min_size=1, max_size=30), st.integers(1, 30))
def test_the_bound_of_an_entropy_is_below_it_and_by_no_more_than_is_said(odds: list[float], top_k: int) -> None:
    probs = sorted((math.exp(-x) for x in odds), reverse=True)
    probs = [x / math.fsum(probs) for x in probs]
    entropy = -math.fsum(x * math.log(x) for x in probs)
    bound = wire.bound_entropy([math.log(x) for x in probs[:top_k]])
    rest, num_rest = math.fsum(probs[top_k:]), len(probs[top_k:])
    gap = rest * math.log(num_rest * min(probs[top_k - 1], rest) / rest) if rest else 0.0
    assert entropy - gap - 1e-9 <= bound <= entropy + 1e-9


def test_the_bound_of_an_entropy_is_finite_where_the_likeliest_leave_nothing() -> None:
    assert wire.bound_entropy([0.0]) == 0.0
    assert wire.bound_entropy([-1e-7, -3.4028234663852886e38]) == pytest.approx(0.0, abs=1e-4)
    assert wire.bound_entropy([1e-7]) >= 0.0


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(dict.fromkeys(ANSWER["meta_info"], json_values), optional={"other": json_values}), json_values
)
def test_whatever_comes_is_a_completion_or_an_error_of_ours(meta: Any, output_ids: Any) -> None:
    for answer in ({"meta_info": meta, "output_ids": output_ids}, {"meta_info": output_ids}):
        with pytest.raises(Unavailable):
            wire.decode_completion(answer, request())


@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_whatever_a_refusal_says_it_is_told_in_bounds(body: bytes) -> None:
    assert 0 < len(wire.read_message(body)) <= 501
    for status in (400, 404, 422, 429, 500, 503):
        assert isinstance(wire.error_for_status(status, body), IbtpoError)


def test_a_refusal_in_mid_stream_is_raised_like_any_other() -> None:
    stream = b'data: {"output_ids": [1]}\n\ndata: {"error": {"message": "full", "code": 429}}\n\ndata: [DONE]\n\n'
    with pytest.raises(Overloaded, match="full"):
        wire.parse_last_event(stream)
    with pytest.raises(MalformedAnswer):
        wire.parse_last_event(b"data: [DONE]\n\n")


def test_a_group_is_served_by_one_copy_of_the_model() -> None:
    def rank(group: int, dp: int) -> int | None:
        body = json.loads(
            wire.encode_request(replace(request(), group=group), "r", WeightVersion(1, 1), stream=False, dp=dp)
        )
        found: int | None = body.get("routed_dp_rank")
        return found

    assert rank(7, 1) is None
    assert {rank(group, 3) for group in range(-9, 9)} == {0, 1, 2}
    assert rank(-5, 3) == rank(-5, 3)


@given(st.lists(st.floats(width=32), max_size=9), st.sampled_from(["F64", "F32", "F16", "BF16"]))
def test_numbers_that_are_none_are_found_in_every_format(numbers: list[float], dtype: str) -> None:
    if dtype == "F16":
        numbers = [number for number in numbers if not math.isfinite(number) or abs(number) < 65504]
    codes = {"F64": "d", "F32": "f", "F16": "e", "BF16": "f"}
    data = struct.pack(f"<{len(numbers)}{codes[dtype]}", *numbers)
    if dtype == "BF16":  # the upper half of each
        data = b"".join(data[start + 2 : start + 4] for start in range(0, len(data), 4))
        numbers = [struct.unpack("<f", b"\0\0" + data[start : start + 2])[0] for start in range(0, len(data), 2)]
    assert has_nonfinite(data, dtype) == (not all(map(math.isfinite, numbers)))


def test_huge_numbers_are_finite() -> None:
    assert not has_nonfinite(struct.pack("<3f", 3.4e38, -3.4e38, 1e-45), "F32")


def test_digests_are_those_of_the_manifest_or_computed(bundle: BundleFactory) -> None:
    directory, version = bundle(), WeightVersion(2, 7)
    computed = Bundle.read(directory, version).digests()
    manifest = write_manifest("r", directory, version)
    assert len(computed) > 0
    for served in (version, WeightVersion(0, 0)):
        assert Bundle.read(directory, served).digests() == computed
    said = {piece.tensor: piece.xxh3 for file in manifest.files for piece in file.pieces if piece.tensor}
    assert said == computed


def test_what_the_configuration_says_of_the_server_comes_last(bundle: BundleFactory) -> None:
    read = Bundle.read(bundle(), WeightVersion(2, 7))
    config = SglangConfig(command=("python", "-m", "x"), arguments=("--log-level", "error"), tp=2, memory_fraction=0.8)
    command = " ".join(build_command(config, read, 4321))
    assert command.startswith(f"python -m x --model-path {read.directory} --host 127.0.0.1 --port 4321")
    assert "--weight-version 2.7" in command
    assert "--tp-size 2" in command
    assert "--dp-size" not in command
    assert "--mem-fraction-static 0.8" in command
    assert command.endswith("--log-level error")


def test_the_server_does_not_hear_our_secrets() -> None:
    given_to_it = build_environment({"IBTPO_TOKEN": "s", "REDIS_URL": "redis://:p@h", "CUDA_VISIBLE_DEVICES": "0"})
    assert given_to_it["CUDA_VISIBLE_DEVICES"] == "0"
    assert not {"IBTPO_TOKEN", "REDIS_URL"} & given_to_it.keys()


@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
def test_the_server_calls_itself_through_no_proxy(name: str) -> None:
    given_to_it = build_environment({"HTTP_PROXY": "http://127.0.0.1:1", name: "a.example"})
    assert given_to_it["NO_PROXY"] == given_to_it["no_proxy"] == "a.example,127.0.0.1,localhost"


@pytest.mark.parametrize("version", ["0.5.21", "0.5.23", "0.5.23.post1", "0.5.31"])
def test_known_releases_are_taken(version: str) -> None:
    check_release(version)


@pytest.mark.parametrize("version", ["0.5.20", "0.5.9", "0.4.99", "0.6.0", "1.0.0", "dev", None, 5])
def test_other_releases_are_refused(version: object) -> None:
    with pytest.raises(Unavailable, match=r"0\.5\.21 to 0\.5\.23"):
        check_release(version)


def test_a_servers_url_is_read_or_refused() -> None:
    assert Address.parse("http://sglang:30000") == Address("sglang", 30000, is_tls=False)
    assert Address.parse("https://sglang/") == Address("sglang", 443, is_tls=True)
    assert str(Address.parse("http://[::1]:30000")) == "[::1]:30000"
    for url in ("", "sglang:30000", "ftp://sglang", "http://sglang/v1"):
        with pytest.raises(InvalidInput):
            Address.parse(url)
