"""A delta makes its base into its result, bit for bit, or into nothing."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import InvalidInput
from shared.weights import delta as deltas
from shared.weights.delta import HEAD_BYTES, BlockHead, Coding, apply_block, encode_piece, values_in

HEAD = struct.Struct("<IBQII")


def applied(blocks: bytes, base: Any) -> Any:
    """`base` with the blocks applied."""
    target, at = base.copy(), 0
    while at < len(blocks):
        head = BlockHead.unpack(blocks[at : at + HEAD_BYTES])
        head.check(len(target), target.itemsize)
        at += HEAD_BYTES
        apply_block(head, blocks[at : at + head.num_bytes], target)
        at += head.num_bytes
    return target


@settings(max_examples=80, deadline=None)
@given(
    width=st.sampled_from([1, 2, 4, 8]),
    length=st.integers(0, 300),
    share=st.sampled_from([0.0, 0.01, 0.2, 0.3, 1.0]),
    block=st.sampled_from([8, 64, 1 << 22]),
    seed=st.integers(0, 1000),
)
def test_any_change_arrives_and_arriving_twice_is_harmless(
    width: int, length: int, share: float, block: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 256, length * width, np.uint8)
    new = np.where(rng.random(length * width) < share, rng.integers(0, 256, length * width), base).astype(np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deltas, "BLOCK_BYTES", block)
        before, after = (values_in(data.tobytes(), 0, data.nbytes, width) for data in (base, new))
        blocks = b"".join(encode_piece(3, after, before))
        once = applied(blocks, before)
        assert once.tobytes() == after.tobytes() == applied(blocks, once).tobytes()
        assert (blocks == b"") == (base.tobytes() == new.tobytes())
        assert applied(b"".join(encode_piece(3, after, None)), before).tobytes() == after.tobytes()


def test_a_small_step_of_bfloat16_costs_about_a_byte_a_hundred_values() -> None:
    rng = np.random.default_rng(0)
    base = (rng.normal(0, 0.02, 1 << 20).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    new = base + (rng.random(len(base)) < 0.01)
    assert len(b"".join(encode_piece(0, new.astype(np.uint16), base))) < 0.012 * base.nbytes


def squeezed(counts: list[int], gaps: list[int], written: bytes) -> bytes:
    plain = np.array(counts, "<u4").tobytes()
    plain += np.array(gaps, "<u4").view(np.uint8).reshape(-1, 4).T.tobytes() + written
    return zstandard.ZstdCompressor().compress(plain)


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b"", "not zstd"),
        (b"\0" * 40, "not zstd"),
        (squeezed([1, 0], [10], b"x"), "beyond what it covers"),
        (squeezed([2, 0], [1, 2**32 - 1], b"xy"), "beyond what it covers"),
        (squeezed([2, 0], [1], b"x"), "announces 2 changes"),
        (squeezed([2**32 - 1, 2**32 - 1], [1], b"x"), "changes"),
        (zstandard.ZstdCompressor().compress(b"\0" * 10_000_000)[:40], "announces 10000000 bytes"),
        (zstandard.ZstdCompressor().compressobj().compress(b"x" * 300_000)[:40], "announces"),
        (zstandard.ZstdCompressor().compress(b"1234567"), "announces 7 bytes"),
        (squeezed([1, 0], [1], b"x")[:-2], "not zstd"),
        (squeezed([1, 0], [1], b"x") + b"more", "not zstd"),
    ],
)
def test_a_hostile_payload_is_refused(payload: bytes, said: str) -> None:
    target = np.zeros(10, np.uint16)
    with pytest.raises(InvalidInput, match=said):
        apply_block(BlockHead(0, Coding.SPARSE, 0, 10, len(payload)), payload, target)


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ((0, 2, 0, 1, 1), "coding 2"),
        ((0, 0, 0, 0, 0), "does not lie in its piece"),
        ((0, 0, 5, 6, 12), "does not lie in its piece"),
        ((0, 0, 2**64 - 1, 1, 2), "does not lie in its piece"),
        ((0, 0, 0, 2**32 - 1, 4), "does not lie in its piece"),
        ((0, 0, 0, 10, 19), "a payload of 19"),
        ((0, 1, 0, 10, 21), "a payload of 21"),
    ],
)
def test_a_hostile_head_is_refused(head: tuple[int, ...], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        BlockHead.unpack(HEAD.pack(*head)).check(10, 2)


def test_values_of_a_file_are_seen_where_they_lie(tmp_path: Path) -> None:
    assert values_in(b"\0\1\2\0\3\0", 2, 4, 2).tolist() == [2, 3]
