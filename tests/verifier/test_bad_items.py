"""One bad item is one bad item: it has no reward, says why, and costs no neighbour its verdict."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.verifier.json_items import CutBatch, cut_batch
from shared.errors import InvalidInput
from tests.verifier.serving import make_item, open_verifier

pytestmark = pytest.mark.asyncio(loop_scope="module")

JSON, NDJSON = "application/json", "application/x-ndjson"
FIRST = json.dumps(make_item("exact", "yes", {"gold": "yes"}, "first"))
LAST = json.dumps(make_item("math", "\\boxed{5}", {"gold": "4"}, "last"))
LONG = json.dumps(make_item("exact", '"}],{[\\"' * 10_000, {"gold": "yes"}, "long"))
# each in place of the field of its name, beside what the reason says
BAD_VALUES = r"""
response    "half \ud800"               surrogate
response    "half \udfff and \ud801"    surrogate
response    null                        response
response    5                           response
response    {"text": "yes"}             response
response    ["yes"]                     response
answer_key  {"gold": "half \ud800"}     surrogate
answer_key  {"gold": 1e999}             no number
answer_key  {"gold": NaN}               no number
answer_key  {"gold": -Infinity}         no number
answer_key  {"gold": 99999999999999999999}  64 bits
answer_key  {"gold": {"\udc00": 1}}     surrogate
answer_key  "yes"                       answer_key
answer_key  null                        answer_key
limits      {"wall_seconds": 1e999}     limits
limits      {"wall_seconds": NaN}       limits
limits      {"wall_seconds": -0}        limits
limits      {"cpu_seconds": 1e9}        limits
limits      {"memory_bytes": 1e300}     limits
limits      {"memory_bytes": "much"}    limits
limits      {"output_bytes": -1}        limits
limits      {"wall": 1}                 limits
limits      7                           limits
kind        null                        kind
kind        12                          kind
kind        "\ud800"                    surrogate
""".strip().splitlines()
VAST_VALUES = {
    "an integer of 5,000 digits": ("answer_key", '{"gold": ' + "9" * 5_000 + "}", "out of range"),
    "limits of 5,000 digits": ("limits", '{"memory_bytes": ' + "9" * 5_000 + "}", "out of range"),
    "10,000 brackets": ("answer_key", '{"gold": ' + "[" * 10_000 + "]" * 10_000 + "}", "recursion limit"),
    "40 brackets": ("answer_key", '{"gold": ' + "[" * 40 + "]" * 40 + "}", "nested more than 32 deep"),
    "10,000 objects": ("limits", '{"a": ' * 10_000 + "1" + "}" * 10_000, "recursion limit"),
    "200 wrong names": ("limits", "{" + ",".join(f'"n{n}": 1' for n in range(200)) + "}", "fields or values are wrong"),
}


def _item_with(field: str, value: str) -> str:
    fields = {"id": '"bad"', "kind": '"exact"', "response": '"yes"', "answer_key": '{"gold": "yes"}', field: value}
    return "{" + ", ".join(f'"{name}": {text}' for name, text in fields.items()) + "}"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with open_verifier() as client:
        yield client


async def _judge(client: httpx.AsyncClient, accept: str, *items: str) -> list[dict[str, Any]]:
    """The verdicts of items given as JSON text, in their order."""
    body = '{"items": [' + ", ".join(items) + "]}"
    headers = {"content-type": JSON, "accept": accept}
    response = await client.post("/v1/verdicts", content=body.encode("utf-8", "surrogatepass"), headers=headers)
    assert response.status_code == 200, response.text
    if accept == JSON:
        return list(response.json()["verdicts"])
    return [json.loads(line) for line in response.text.splitlines()]


async def _require_bad(client: httpx.AsyncClient, accept: str, item: str, says: str, *beside: str) -> None:
    verdicts = {verdict["id"]: verdict for verdict in await _judge(client, accept, FIRST, item, *beside, LAST)}
    assert (verdicts["first"]["reward"], verdicts["last"]["reward"]) == (1.0, 0.0)
    assert (verdicts["bad"]["reward"], verdicts["bad"]["outcome"]) == (None, "infrastructure")
    assert says in verdicts["bad"]["reason"]
    assert (await client.get("/healthz")).json()["pending_items"] == 0


@pytest.mark.parametrize("line", BAD_VALUES)
async def test_a_bad_value_costs_its_item_the_verdict_and_no_other(client: httpx.AsyncClient, line: str) -> None:
    field, _, rest = line.partition(" ")
    value, _, says = rest.strip().rpartition("  ")
    await _require_bad(client, JSON, _item_with(field, value.strip()), says)
    await _require_bad(client, NDJSON, _item_with(field, value.strip()), says)


async def test_a_bad_item_is_found_in_a_long_batch(client: httpx.AsyncClient) -> None:
    await _require_bad(client, JSON, _item_with("response", '"\\udfff"'), "surrogate", LONG)


@pytest.mark.parametrize("name", VAST_VALUES)
async def test_a_vast_value_costs_its_item_the_verdict_and_no_other(client: httpx.AsyncClient, name: str) -> None:
    field, value, says = VAST_VALUES[name]
    for accept in (JSON, NDJSON):
        await _require_bad(client, accept, _item_with(field, value), says)


@pytest.mark.parametrize(
    ("item_id", "shown"), [("5", "5"), ("null", ""), ('"\\ud800"', "?"), ('"' + "a" * 300 + '"', "a" * 300)]
)
async def test_a_bad_id_is_shown_as_far_as_it_can_be(client: httpx.AsyncClient, item_id: str, shown: str) -> None:
    first, bad, last = await _judge(client, JSON, FIRST, _item_with("id", item_id), LAST)
    assert (first["reward"], bad["reward"], last["reward"]) == (1.0, None, 0.0)
    assert bad["id"] == shown


async def test_text_with_nul_is_text(client: httpx.AsyncClient) -> None:
    nul, tests = "a\0b", {"type": "assert", "entry_point": "f", "asserts": ["assert f() == 1"]}
    items = [
        make_item("exact", nul, {"gold": nul}, nul),
        make_item("math", f"\\boxed{{{nul}}}", {"gold": "4"}),
        make_item("choice", f"\\boxed{{{nul}}}", {"gold": "A"}),
        make_item("code", f"```python\ndef f(): return 1\n{nul}\n```", {"tests": tests}),
    ]
    verdicts = await _judge(client, JSON, *map(json.dumps, items))
    assert [verdict["reward"] for verdict in verdicts] == [1.0, 0.0, 0.0, 0.0]
    assert verdicts[0]["id"] == nul


VAST_KEY = _item_with("answer_key", '{"gold": [' + '"",' * 100_000 + "1]}")


@pytest.mark.parametrize(
    "item",
    [
        VAST_KEY,
        '{"id": "1", "kind" "exact"}',
        '{"id": "1", "kind": "exact", "more": 1}',
        "{}",
        "1",
        "[]",
        '"x"',
        "null",
    ],
)
async def test_what_is_no_item_has_its_batch_refused(client: httpx.AsyncClient, item: str) -> None:
    for beside in (LAST, LONG):
        body = '{"items": [' + FIRST + "," + item + "," + beside + "]}"
        response = await client.post("/v1/verdicts", content=body, headers={"content-type": JSON})
        assert response.status_code in (400, 422)
        assert "1" in response.text


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.text('\ud800\udfff\0\\"{}[],'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
_FIELDS = st.sampled_from(["id", "response", "answer_key", "limits", "kind"])


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(field=_FIELDS, value=_VALUES, ensure_ascii=st.booleans(), accept=st.sampled_from([JSON, NDJSON]))
async def test_no_value_of_a_field_costs_a_neighbour_its_verdict(
    client: httpx.AsyncClient, field: str, value: Any, ensure_ascii: bool, accept: str
) -> None:
    if (field == "kind" and isinstance(value, str)) or (field == "answer_key" and isinstance(value, dict)):
        value = [value]  # a kind or a key that can be read may have the batch refused
    verdicts = await _judge(
        client, accept, FIRST, _item_with(field, json.dumps(value, ensure_ascii=ensure_ascii)), LAST
    )
    rewards = [verdict["reward"] for verdict in verdicts if verdict["id"] in ("first", "last")]
    assert (len(verdicts), sorted(rewards)) == (3, [0.0, 1.0])


_BODIES = st.recursive(st.sampled_from(['"a\\"]"', '"\\\\"', "1", '""']), lambda inner: st.one_of(
    st.lists(inner, max_size=3).map(lambda parts: f"[{','.join(parts)}]"),
    st.lists(inner, max_size=3).map(lambda parts: "{" + ", ".join(f'"k{n}": {p}' for n, p in enumerate(parts)) + "}"),
))  # fmt: skip


def _cut(body: str) -> CutBatch:
    *_, cut = cut_batch(body.encode(), 100)
    assert cut is not None
    return cut


@settings(max_examples=20, deadline=None)
@given(st.lists(_BODIES.filter(lambda text: text.startswith("{")), max_size=4), _BODIES)
async def test_a_batch_is_cut_where_its_items_are(items: list[str], beside: str) -> None:
    cut = _cut(f'{{"x": {beside}, "items": [{" , ".join(items)}], "y": {beside}}}')
    assert [item.text.decode() for item in cut.items] == items
    assert json.loads(cut.frame) == {"x": json.loads(beside), "items": [], "y": json.loads(beside)}
    for item in cut.items:
        whole = json.loads(item.text)
        assert json.loads(item.outline) == {
            name: {} if isinstance(value, dict | list) else value for name, value in whole.items()
        }


@pytest.mark.parametrize("body", ['{"items": [{}], "items": []}', '{"items": [' + "{}," * 100 + "{}]}"])
async def test_a_batch_that_is_ambiguous_or_too_long_is_refused(body: str) -> None:
    with pytest.raises(InvalidInput, match=r"twice|more than 100"):
        _cut(body)
