"""A server that speaks SGLang's contract and computes nothing: latencies, a prefix cache, weights, and faults.

It takes SGLang's command line, so that a replica can launch it: python contract_server.py --model-path DIR --port N.
A bundle's weights are known by the directory's name. POST /test/fault has the next calls of a path go wrong as one
of FAULTS says; GET /test/seen lists the calls so far, and what the server does now.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import math
import os
import random
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import httptools

FAULTS = (
    "message-in-error",  # the three shapes of a refusal
    "text-in-error",
    "object-error",
    "unavailable",
    "full",
    "abort",  # HTTP 200, finish reason abort
    "garbled",
    "no-json",
    "changed-but-refused",  # the weights change, the flush is refused
    "nothing-changed",  # success, and the old weights
    "label-only",  # the same, under the new label
    "in-part",  # the first tensor alone is new
    "in-part-merged",  # all but what the server merges are new
    "foreign",  # new weights, of whom is not known
    "hang",
    "close",
    "exit",
)
REFUSALS = {
    "message-in-error": (400, {"error": {"message": "refused: one"}}),
    "text-in-error": (400, {"error": "refused: two"}),
    "object-error": (400, {"object": "error", "message": "refused: three"}),
    "unavailable": (503, {"error": {"message": "not now"}}),
    "full": (429, {"error": {"message": "queue full"}}),
}


@dataclass(slots=True)
class Running:
    """A request that is being answered, and the weights that sampled its tokens so far."""

    rid: str
    starts: list[tuple[str, int]]
    num_tokens: int = 0
    is_aborted: bool = False


@dataclass(slots=True)
class State:
    """All that the server is."""

    options: argparse.Namespace
    version: str
    model_path: str
    rng: random.Random = field(default_factory=lambda: random.Random(0))
    going: asyncio.Event = field(default_factory=asyncio.Event)
    running: dict[str, Running] = field(default_factory=dict)
    cached: set[tuple[str, int, int]] = field(default_factory=set)
    tokens: Counter[str] = field(default_factory=Counter)
    seen: list[dict[str, Any]] = field(default_factory=list)
    faults: dict[str, deque[str]] = field(default_factory=dict)
    most_running: int = 0
    num_health_checks: int = 0
    weights: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.weights = checksums_of(self.model_path, self.options.checksums)

    def fault(self, path: str) -> str:
        waiting = self.faults.get(path)
        return waiting.popleft() if waiting else ""


def checksums_of(directory: str, kind: str) -> dict[str, str]:
    """Of its tensors, `w` and `b`, as SGLang computes them on a CPU, or as if on a GPU; two are merged as well."""
    path = os.path.join(directory, "model.safetensors")
    if not os.path.exists(path):
        return {}
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = file.read()
    found = {name: data[slice(*one["data_offsets"])] for name, one in sorted(header.items()) if name != "__metadata__"}
    key = b"" if kind == "sha256" else b"gpu"
    if kind == "constant":
        found = dict.fromkeys(found, b"")
    merged = {**found, "merged": b"".join(found.values())}
    return {name: hashlib.sha256(key + content).hexdigest()[:16] for name, content in merged.items()}


def hashes(token_ids: list[int]) -> list[int]:
    """Of every prefix, by its length minus one."""
    found, value = [], 0
    for token in token_ids:
        value = hash((value, token))
        found.append(value)
    return found


def faint(logprob: float) -> float:
    """What the logarithm of a float32 softmax makes of it."""
    return logprob if logprob > -104 else -3.4028234663852886e38


def match(state: State, key: str, token_ids: list[int], most: int | None = None) -> int:
    """The tokens of the longest cached prefix, at most all but one, or `most`; and from now on all are cached."""
    known = [(key, index, value) for index, value in enumerate(hashes(token_ids))]
    num_cached = next((index for index, entry in enumerate(known) if entry not in state.cached), len(known))
    state.cached.update(known)
    num_cached = min(num_cached, len(token_ids) - 1, len(token_ids) if most is None else most)
    state.tokens["prefill_cache"] += num_cached
    state.tokens["prefill_compute"] += len(token_ids) - num_cached
    return num_cached


def answer_of(state: State, call: dict[str, Any], run: Running, cached: int, output: list[int], finish: Any) -> Any:
    starts = [*run.starts, ("", len(output))]
    spans = [
        {"version": version, "start": start, "end": end}
        for (version, start), (_, end) in pairwise(starts)
        if start < end or start == 0
    ]
    meta = {
        "id": run.rid,
        "finish_reason": finish,
        "prompt_tokens": len(call["input_ids"]),
        "completion_tokens": len(output),
        "cached_tokens": cached,
        "weight_version": state.version,
        "weight_versions": spans,
        "output_token_logprobs": [[-0.5, token, None] for token in output],
    }
    if count := call.get("top_logprobs_num"):
        likeliest = [[-math.log(2.0) * (1 + index), index, None] for index in range(count)]
        meta["output_top_logprobs"] = [likeliest] * len(output)
    if call.get("return_sampling_mask"):
        meta["output_token_sampling_logprobs"] = [-0.25] * len(output)
    if (start := call.get("logprob_start_len")) is not None:  # the first has none, and the last id reads 0
        last = state.options.vocab - 1
        scored = [[-1.0 - token, token if token < last else 0, None] for token in call["input_ids"][start:]]
        meta["input_token_logprobs"] = [[None, *scored[0][1:]], *scored[1:]]
    if call.get("token_ids_logprob"):
        scale = call["sampling_params"]["temperature"]
        scored = [[faint(-(1.0 + token) / scale), token, None] for token in call["token_ids_logprob"]]
        meta["output_token_ids_logprobs"] = [scored] * len(output)
    return {"text": "", "output_ids": output, "meta_info": meta}


async def sample(state: State, call: dict[str, Any], first_token: Any) -> Any:
    params = call["sampling_params"]
    rng = random.Random(state.rng.random())
    num_tokens = params["max_new_tokens"]
    if state.options.tokens:
        num_tokens = min(num_tokens, max(1, int(rng.gauss(state.options.tokens, state.options.tokens / 4))))
    is_stopped = "stop_token_ids" in params and num_tokens < params["max_new_tokens"]
    run = Running(call.get("rid") or str(rng.random()), [])
    state.running[run.rid] = run
    state.most_running = max(state.most_running, len(state.running))
    try:
        await state.going.wait()
        await asyncio.sleep(state.options.prefill_seconds)
        run.starts.append((state.version, 0))
        cached = match(state, call.get("extra_key") or "", call["input_ids"], call.get("logprob_start_len"))
        output = [rng.randrange(2, state.options.vocab) for _ in range(num_tokens)]
        if is_stopped:
            output[-1] = params["stop_token_ids"][0]
        await first_token()
        await tokens_pass(state, run, num_tokens)
        match(state, call.get("extra_key") or "", call["input_ids"] + output)
        state.tokens["decode"] += len(output)
        finish: Any = {"type": "stop", "matched": 1} if is_stopped else {"type": "length", "length": num_tokens}
        if run.is_aborted:
            finish, output = {"type": "abort", "message": "Aborted"}, output[: run.num_tokens]
        return answer_of(state, call, run, cached, output, finish)
    finally:
        state.running.pop(run.rid, None)


async def tokens_pass(state: State, run: Running, num_tokens: int) -> None:
    """The time that sampling takes; a pause holds it up."""
    step = state.options.token_seconds
    while run.num_tokens < num_tokens and not run.is_aborted:
        await state.going.wait()
        rest = num_tokens - run.num_tokens
        chunk = rest if not step else max(1, min(rest, int(0.02 / step) or 1))
        if state.options.whole_answers:
            chunk = rest
        await asyncio.sleep(step * chunk)
        run.num_tokens += chunk


class Answering:
    """One connection."""

    def __init__(self, state: State, writer: asyncio.StreamWriter) -> None:
        self.state = state
        self.writer = writer
        self.path = ""
        self.body = b""
        self.done = False

    def on_url(self, url: bytes) -> None:
        self.path = url.decode()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.done = True

    def say(self, status: int, body: Any, kind: str = "application/json") -> None:
        content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n\r\n"
        self.writer.write(head.encode() + content)

    async def answer(self) -> None:
        call = json.loads(self.body) if self.body else {}
        self.body, self.done = b"", False
        state = self.state
        if self.path != "/metrics" and not self.path.startswith("/health"):
            state.seen.append({"path": self.path, "call": call})
        state.num_health_checks += self.path == "/health_generate"
        fault = state.fault(self.path)
        if fault == "exit":
            os._exit(1)
        if fault == "hang":
            await asyncio.sleep(3600)
        if fault == "close":
            raise ConnectionError
        if fault == "no-json":
            self.say(200, "not json")
        elif fault == "garbled":
            self.say(200, {"meta_info": {"finish_reason": {"type": "stop"}}})
        elif fault in REFUSALS:
            self.say(*REFUSALS[fault])
        elif self.path == "/generate":
            await self.generate(call, is_aborted=fault == "abort")
        else:
            self.control(call, fault)

    async def generate(self, call: dict[str, Any], *, is_aborted: bool) -> None:
        state = self.state
        longest = state.options.context - 6
        if max(call["input_ids"]) >= state.options.vocab or state.options.poison in call["input_ids"]:
            os._exit(1)
        if len(call["input_ids"]) >= longest:
            self.say(400, {"error": {"message": "too long"}})
            return
        if is_aborted:
            run = Running(call["rid"], [(state.version, 0)])
            self.say(200, answer_of(state, call, run, 0, [2], {"type": "abort", "message": "Aborted"}))
            return
        if not call.get("stream"):

            async def nothing() -> None:
                pass

            self.say(200, await sample(state, call, nothing))
            return
        self.writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")

        async def first() -> None:
            await self.event({"output_ids": [2], "meta_info": {"finish_reason": None}})

        await self.event(await sample(state, call, first))
        self.chunk(b"data: [DONE]\n\n")
        self.chunk(b"")

    async def event(self, body: Any) -> None:
        self.chunk(b"data: " + json.dumps(body).encode() + b"\n\n")
        await self.writer.drain()

    def chunk(self, data: bytes) -> None:
        self.writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def control(self, call: dict[str, Any], fault: str) -> None:
        state = self.state
        match self.path:
            case "/health" | "/health_generate":
                self.say(200, "")
            case "/model_info":
                self.say(200, {"weight_version": state.version, "model_path": state.model_path})
            case "/server_info":
                longest = state.options.context - 6
                self.say(200, {"version": state.options.sglang_version, "max_req_input_len": longest})
            case "/pause_generation":
                state.going.clear()
                self.say(200, {"status": "ok"})
            case "/continue_generation":
                state.going.set()
                self.say(200, {"status": "ok"})
            case "/update_weights_from_disk":
                self.update(call, fault)
            case "/weights_checker" if state.options.checksums != "none":
                info = {"role": "target", "tp_rank": 0}
                worker = {"checksums": state.weights, "per_gpu_checksum": "", "parallelism_info": info}
                self.say(200, {"success": True, "message": "Success.", "ranks": [worker]})
            case "/abort_request":
                if call["rid"] in state.running:
                    state.running[call["rid"]].is_aborted = True
                self.say(200, "")
            case "/metrics":
                self.say(200, metrics_of(state), "text/plain")
            case "/test/fault":
                state.faults.setdefault(call["path"], deque()).extend([call["fault"]] * call.get("times", 1))
                self.say(200, {})
            case "/test/seen":
                self.say(200, seen_by(state))
            case _:
                self.say(404, {"detail": "Not Found"})

    def update(self, call: dict[str, Any], fault: str) -> None:
        state = self.state
        if not os.path.isdir(call["model_path"]):
            self.say(400, {"success": False, "message": "no such path"})
            return
        if fault != "nothing-changed":
            state.model_path = call["model_path"]
            state.weights = self.loaded(checksums_of(call["model_path"], state.options.checksums), fault)
            for run in state.running.values():
                if run.starts:
                    run.starts.append((call["weight_version"], run.num_tokens))
        if fault == "changed-but-refused":
            self.say(400, {"success": False, "message": "flush refused"})
            return
        if fault != "nothing-changed":
            state.version = call["weight_version"]
        state.cached.clear()
        self.say(200, {"success": True, "message": "Succeeded"})

    def loaded(self, new: dict[str, str], fault: str) -> dict[str, str]:
        """What it has then, if that goes wrong."""
        old = self.state.weights
        match fault:
            case "label-only":
                return old
            case "in-part":
                return {**old, min(new): new[min(new)]}
            case "in-part-merged":
                return {**new, "merged": old["merged"]}
            case "foreign":
                return {name: checksum[::-1] for name, checksum in new.items()}
        return new


def seen_by(state: State) -> dict[str, Any]:
    return {
        "calls": state.seen,
        "tokens": state.tokens,
        "most_running": state.most_running,
        "running": {run.rid: run.num_tokens for run in state.running.values()},
        "num_health_checks": state.num_health_checks,
    }


def metrics_of(state: State) -> str:
    lines = ["# HELP sglang:num_running_reqs Running.", "# TYPE sglang:num_running_reqs gauge"]
    lines.append(f'sglang:num_running_reqs{{model_name="{state.model_path}",tp_rank="0"}} {len(state.running)}.0')
    lines += ["# HELP sglang:realtime_tokens_total Tokens.", "# TYPE sglang:realtime_tokens_total counter"]
    for mode, number in state.tokens.items():
        lines.append(f'sglang:realtime_tokens_total{{mode="{mode}",model_name="{state.model_path}"}} {number}.0')
    lines += ["# HELP python_info Not SGLang's.", "# TYPE python_info gauge", "python_info 1.0", ""]
    return "\n".join(lines)


async def serve(state: State) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answering = Answering(state, writer)
        parser = httptools.HttpRequestParser(answering)
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 18):
                parser.feed_data(data)
                if answering.done:
                    await answering.answer()
                    await writer.drain()
        writer.close()

    state.going.set()
    print(f"model {state.model_path} version {state.version}", flush=True)
    server = await asyncio.start_server(connected, state.options.host, state.options.port, backlog=8192)
    async with server:
        await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--model-path", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--weight-version", default="default")
    parser.add_argument("--sglang-version", default="0.5.23")
    parser.add_argument("--vocab", type=int, default=20)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=0, help="mean length of an answer; 0: as long as allowed")
    parser.add_argument("--token-seconds", type=float, default=0.0)
    parser.add_argument("--prefill-seconds", type=float, default=0.0)
    parser.add_argument("--whole-answers", action="store_true", help="one sleep an answer: pauses do not hold it up")
    parser.add_argument("--start-seconds", type=float, default=0.0)
    parser.add_argument("--poison", type=int, default=-1, help="a token that kills the server")
    parser.add_argument("--checksums", choices=["sha256", "other", "constant", "none"], default="sha256")
    parser.add_argument("--fail", default="", help="say this and exit")
    options, _ = parser.parse_known_args()
    if options.fail:
        print(options.fail, flush=True)
        raise SystemExit(7)
    time.sleep(options.start_seconds)
    asyncio.run(serve(State(options, options.weight_version, options.model_path)))


if __name__ == "__main__":
    main()
