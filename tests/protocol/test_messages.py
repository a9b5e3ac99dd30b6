"""Messages survive every journey unchanged, and nothing malformed becomes one."""

import json
import math
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.errors import InvalidInput
from shared.protocol.grow import GrowRequest
from shared.protocol.replica import ReplicaInfo, ReplicaState
from shared.protocol.status import Accounts, RunState, RunStatus
from shared.protocol.task import Growth, Problem, Task
from shared.protocol.tree import ScoredTree, TreeUsage
from shared.protocol.verdict import Outcome, Verdict, VerdictItem, VerdictRequest
from shared.protocol.weights import BundleFile, Manifest
from shared.tree.draw import Draw, Finish, VersionSpan, WeightVersion
from shared.tree.samplers import IBSampler, IndependentSampler
from tests.protocol.strategies import json_objects, scored_trees, tasks, texts, versions

quick = settings(max_examples=40, deadline=None)


def an_item(**changes: Any) -> dict[str, Any]:
    return {"id": "1", "kind": "math", "response": "x", "answer_key": {}, **changes}


def a_draw(**changes: Any) -> Draw:
    fields: dict[str, Any] = {
        "parent": None,
        "cut": 0,
        "token_ids": (5, 6),
        "logprobs": (-0.5, -0.25),
        "step_ends": (2,),
        "spans": (VersionSpan(WeightVersion(1, 2), 0, 2),),
        "finish": Finish.STOP,
        "reward": 1.0,
    }
    return Draw(**{**fields, **changes})


def packed(**changes: Any) -> dict[str, Any]:
    """The unpacked wire form of a tree of two draws, to be spoilt."""
    task = Task(
        run="r",
        id="0-0",
        problem_id="p",
        prompt_ids=(1,),
        kind="math",
        answer_key={},
        growth=Growth(sampler=IndependentSampler()),
        seed=0,
    )
    second = a_draw(parent=0, cut=1, step_ends=(3,))
    tree = ScoredTree(task=task, replica="a", draws=(a_draw(), second), usage=TreeUsage())
    body: dict[str, Any] = msgpack.unpackb(tree.pack())
    return {**body, **changes}


def spoilt(draw: int, **changes: Any) -> dict[str, Any]:
    body = packed()
    body["draws"][draw] = {**body["draws"][draw], **changes}
    return body


@quick
@given(tasks)
def test_a_task_survives_json(task: Task) -> None:
    assert Task.model_validate_json(task.model_dump_json()) == task


@quick
@given(scored_trees)
def test_a_tree_survives_packing(tree: ScoredTree) -> None:
    assert ScoredTree.unpack(tree.pack()) == tree


@quick
@given(json_objects, texts)
def test_an_item_to_judge_survives_json(answer_key: dict[str, Any], response: str) -> None:
    item = VerdictItem(id="1", kind="k", response=response, answer_key=answer_key)
    assert VerdictItem.model_validate_json(item.model_dump_json()) == item


@quick
@given(versions, texts, st.sampled_from(ReplicaState))
def test_a_replicas_word_survives_json(version: WeightVersion, name: str, state: ReplicaState) -> None:
    info = ReplicaInfo(name=name, url="http://x", state=state, version=version)
    assert ReplicaInfo.model_validate_json(info.model_dump_json()) == info
    assert WeightVersion.parse(str(version)) == version


def test_a_status_survives_json() -> None:
    status = RunStatus(run="r", state=RunState.TRAINING, accounts=Accounts(fed=3, used=1, outstanding=2))
    assert RunStatus.model_validate_json(status.model_dump_json()) == status


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_make_a_tree_or_another_error(data: bytes) -> None:
    with pytest.raises(InvalidInput, match="not a scored tree"):
        ScoredTree.unpack(data)


@quick
@given(scored_trees, st.data())
def test_a_damaged_tree_is_refused_or_is_still_a_tree(tree: ScoredTree, data: st.DataObject) -> None:
    wire = bytearray(tree.pack())
    for _ in range(data.draw(st.integers(1, 3))):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(wire)))
    for damaged in (bytes(wire), bytes(wire[:cut])):
        try:
            again = ScoredTree.unpack(damaged)
        except InvalidInput:
            continue
        assert ScoredTree.unpack(again.pack()) == again


@pytest.mark.parametrize(
    "body",
    [
        spoilt(0, step_likelihoods=b"\0\0\0\x40"),  # 2.0, and one of two
        spoilt(0, step_likelihoods=b"abc"),
        spoilt(0, step_likelihoods=[0.5]),
        packed(protocol=2),
        packed(draws=[]),
        packed(draws=3),
        packed(draws={"0": {}}),
        packed(task=None),
        packed(task={**packed()["task"], "colour": "red"}),
        packed(usage={"seconds": float("nan")}),
        packed(replica=7),
        spoilt(0, parent=0, cut=1),
        spoilt(1, parent=1),
        spoilt(1, parent=-1),
        spoilt(1, parent=True),
        spoilt(1, cut=2, step_ends=b"\4\0\0\0"),
        spoilt(1, cut=1.0),
        spoilt(0, logprobs=b"\0\0\xc0\x7f" * 2),
        spoilt(0, logprobs=b"\0\0\x80\xff" * 2),
        spoilt(0, logprobs=b"\0" * 7),
        spoilt(0, logprobs="text"),
        spoilt(0, sampling_logprobs=b"\0\0\xc0\x7f" * 2),
        spoilt(0, token_ids=b"\xff" * 8),
        spoilt(0, token_ids=b""),
        spoilt(0, spans=[[1, 2, 0, 1]]),
        spoilt(0, spans=[[-1, 2, 0, 2]]),
        spoilt(0, spans=[["1", 2, 0, 2]]),
        spoilt(0, spans=[[1, 2, 0]]),
        spoilt(0, finish="tired"),
        spoilt(0, reward=1.5),
        spoilt(0, reward=float("nan")),
        spoilt(0, reward="1"),
        [],
        None,
        {"protocol": 3},
    ],
)
def test_a_tree_with_something_wrong_is_refused(body: object) -> None:
    with pytest.raises(InvalidInput, match="not a scored tree"):
        ScoredTree.unpack(msgpack.packb(body))
    ScoredTree.unpack(msgpack.packb(packed()))


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), 2**63, -(2**63) - 1, "\ud800", {"\udfff": 1}, {1: 2}, b"x", {1, 2}, object()],
)
def test_an_answer_key_holds_only_what_can_be_sent_on(value: object) -> None:
    with pytest.raises(ValidationError):
        VerdictItem.model_validate(an_item(answer_key={"deep": [value]}))


def test_an_answer_key_is_not_nested_without_end() -> None:
    nested: list[Any] = []
    for _ in range(50):
        nested = [nested]
    with pytest.raises(ValidationError, match="nested more than"):
        VerdictItem.model_validate(an_item(answer_key={"deep": nested}))


@pytest.mark.parametrize("field", ["id", "kind", "response"])
def test_text_that_no_encoding_carries_is_refused(field: str) -> None:
    with pytest.raises(ValidationError, match=r"surrogates not allowed|string_unicode"):
        VerdictItem.model_validate(json.loads(json.dumps(an_item(**{field: "half \ud800"}))))


@pytest.mark.parametrize(
    ("message", "body"),
    [
        (VerdictRequest, {"items": []}),
        (VerdictRequest, {"items": [an_item(extra=1)]}),
        (VerdictRequest, {"items": [an_item()], "deadline_seconds": 0}),
        (VerdictRequest, {"items": [an_item()], "deadline_seconds": float("nan")}),
        (Verdict, {"id": "1", "reward": 1.1, "outcome": "right"}),
        (Verdict, {"id": "1", "reward": 1.0, "outcome": "brilliant"}),
        (Problem, {"id": "1", "prompt": "", "kind": "math", "answer_key": {}}),
        (Problem, {"id": "x" * 300, "prompt": "a", "kind": "math", "answer_key": {}}),
        (Growth, {"sampler": "best"}),
        (Growth, {"sampler": {"kind": "ib", "fist": 4}}),
        (Growth, {"sampler": "ib", "temperature": -1}),
        (Growth, {"sampler": "ib", "top_p": 0}),
        (Growth, {"sampler": "ib", "max_tokens": 0}),
        (GrowRequest, {"growth": {"sampler": "ib"}}),
        (GrowRequest, {"growth": {"sampler": "ib"}, "prompt": "a", "prompt_ids": [1]}),
        (GrowRequest, {"growth": {"sampler": "ib"}, "prompt": "a", "kind": "math"}),
        (BundleFile, {"name": "../x", "num_bytes": 1, "sha256": "0" * 64}),
        (BundleFile, {"name": "a/b", "num_bytes": 1, "sha256": "0" * 64}),
        (BundleFile, {"name": ".hidden", "num_bytes": 1, "sha256": "0" * 64}),
        (BundleFile, {"name": "a\n", "num_bytes": 1, "sha256": "0" * 64}),
        (BundleFile, {"name": "a", "num_bytes": -1, "sha256": "0" * 64}),
        (BundleFile, {"name": "a", "num_bytes": 1, "sha256": "0" * 63 + "\n"}),
        (Manifest, {"run": "r", "version": [1], "files": [], "content_hash": "0" * 64}),
    ],
)
def test_a_malformed_message_is_refused(message: Any, body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        message.model_validate(body)


def test_a_sampler_may_be_given_by_its_name() -> None:
    assert Growth.model_validate({"sampler": "ib"}).sampler == IBSampler()
    assert Growth.model_validate_json(
        '{"sampler": {"kind": "independent", "initial_draws": 3}}'
    ).sampler == IndependentSampler(initial_draws=3)


def test_messages_do_not_change() -> None:
    verdict = Verdict(id="1", reward=None, outcome=Outcome.INFRASTRUCTURE)
    with pytest.raises(ValidationError, match="frozen"):
        verdict.reward = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    "text",
    ["", "1", "1.", ".1", "1.2.3", "-1.2", "1.x", "①.2", " 1.2", "1.2\n", "1.2-", "1.2-x", "1.2-a.b", "9" * 17 + ".0"],
)
def test_what_is_no_version_is_not_read_as_one(text: str) -> None:
    with pytest.raises(ValueError, match="generation"):
        WeightVersion.parse(text)


def test_a_request_that_is_wrong_in_very_many_places_has_one_error() -> None:
    request = {"prompt_ids": ["x"] * 1000, "growth": {"sampler": "ib", **{f"f{n}": 1 for n in range(1000)}}}
    with pytest.raises(ValidationError, match=r"\d{4} fields or values are wrong or unknown") as caught:
        GrowRequest.model_validate(request)
    assert caught.value.error_count() == 1


def test_a_key_holds_a_bounded_number_of_values() -> None:
    item = {"id": "1", "kind": "math", "response": "", "answer_key": {"gold": [0] * 60_000}}
    with pytest.raises(ValidationError, match="more than 50000 values"):
        VerdictItem.model_validate(item)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 2**80},
        {"growth": {"sampler": "ib", "top_k": 2**70}},
        {"growth": {"sampler": "ib", "max_tokens": 2**70}},
        {"growth": {"sampler": "ib", "temperature": 1e-320}},
        {"growth": {"sampler": {"kind": "ib", "score": {"beta": 1e-320}}}},
        {"growth": {"sampler": {"kind": "treepo", "segment_tokens": 10**30}}},
        {"growth": {"sampler": {"kind": "hit", "answer_nats": math.inf}}},
        {"growth": {"sampler": {"kind": "entropy", "closing_ids": [10**30]}}},
        {"growth": {"sampler": {"kind": "entropy", "closing_words": ["\ud800"]}}},
        {"growth": {"sampler": "ib", "likelihood": {"opener": "\ud800"}}},
    ],
)
def test_a_number_that_no_engine_or_message_can_hold_is_refused(change: dict[str, Any]) -> None:
    request = {"prompt": "a", "growth": {"sampler": "ib", "temperature": 1e-6, "top_k": 2**31 - 1}, "seed": 2**64 - 1}
    GrowRequest.model_validate(request)
    with pytest.raises(ValidationError):
        GrowRequest.model_validate(request | change)


@pytest.mark.parametrize("likelihoods", [(0.5, 1.5), (0.5,), (0.5, math.nan)])
def test_likelihoods_that_are_none_are_refused(likelihoods: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="likelihood"):
        a_draw(step_ends=(1, 2), step_likelihoods=likelihoods)


def test_a_sampler_that_needs_a_value_head_is_refused_before_anything_starts() -> None:
    score = {"values": {"kind": "prior", "source": "head"}}
    with pytest.raises(ValidationError, match="replicas have no value head"):
        Growth.model_validate({"sampler": {"kind": "ib", "score": score}})
