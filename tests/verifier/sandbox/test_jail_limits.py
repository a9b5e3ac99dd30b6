"""How runs end that use more than their limits allow."""

# ruff: noqa: E501 - the programs are lines of their own

import time

import pytest

from services.verifier.sandbox.jail_sandbox import JailSandbox
from services.verifier.sandbox.sandbox import EndReason, Limits, Program

pytestmark = pytest.mark.asyncio(loop_scope="module")

WALL = 0.4
LIMITS = Limits(wall_seconds=WALL, cpu_seconds=5.0, memory_bytes=256 << 20, output_bytes=1 << 20)

ENDLESS = {
    "loop": "while True: pass",
    "sleep": "import time\ntime.sleep(10**6)",
    "catch everything": "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
    "ignore signals": "import signal\nfor s in range(1, 65):\n    try: signal.signal(s, signal.SIG_IGN)\n"
    "    except Exception: pass\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True: pass",
    "one long C call": "x = 10 ** (10 ** 9)",
    "regular expression": "import re\nre.match(r'(a+)+$', 'a' * 40 + 'b')",
    "exit handler": "import atexit\n@atexit.register\ndef f():\n    while True: pass",
    "destructor": "class A:\n    def __del__(self):\n        while True: pass\na = A()",
    "cycle collected at the end": "class A:\n    def __del__(self):\n        while True: pass\na = A()\na.a = a",
    "thread at the end": "import threading, time\nthreading.Thread(target=time.sleep, args=(10**6,)).start()",
    "deadlock": "import threading\nl = threading.Lock()\nl.acquire()\nl.acquire()",
    "threads without the lock": "import hashlib, threading\nfor _ in range(16):\n    threading.Thread(target="
    "hashlib.pbkdf2_hmac, args=('sha256', b'x', b'y', 10**9)).start()",
    "own clock": "import time\ntime.time = time.monotonic = lambda: 0.0\nwhile True: pass",
    "stopped output": "import sys\nsys.stdout.close()\nwhile True: pass",
    "own pipe": "import os\nr, w = os.pipe()\nos.read(r, 1)",
    "full pipe": "import os\nr, w = os.pipe()\nwhile True: os.write(w, b'x' * 65536)",
    "compile": "compile('(' * 90 + '1' + ')' * 90 + '\\n' + 'x = [' + '1,' * 10**7 + ']', 'x', 'exec')\nwhile True: pass",
}


@pytest.mark.parametrize("name", ENDLESS)
async def test_what_does_not_end_is_ended_in_time(jail: JailSandbox, name: str) -> None:
    started = time.monotonic()
    run = await jail.run(Program(ENDLESS[name].encode()), LIMITS)
    assert run.end_reason is EndReason.TIMED_OUT, run
    assert time.monotonic() - started < WALL + 10


async def test_processor_time_is_counted_over_all_threads(jail: JailSandbox) -> None:
    source = b"import hashlib\nhashlib.pbkdf2_hmac('sha256', b'x', b'y', 10**9)"
    run = await jail.run(Program(source), Limits(wall_seconds=20.0, cpu_seconds=0.6))
    assert run.end_reason is EndReason.TIMED_OUT
    assert 0.5 < run.cpu_seconds < 5.0


MUCH = {
    "bytes": "x = b'x' * (1 << 30)",
    "list": "x = []\nwhile True: x.append([0] * 100000)",
    "string": "x = 'x'\nwhile True: x += x",
    "range": "x = list(range(10**9))",
    "handled, then again": "try:\n    x = b'x' * (1 << 30)\nexcept MemoryError: pass\nx = b'x' * (1 << 30)",
    "big integer": "x = 1 << (1 << 34)",
}


@pytest.mark.parametrize("name", MUCH)
async def test_what_needs_too_much_memory_says_so(jail: JailSandbox, name: str) -> None:
    limits = Limits(wall_seconds=10.0, memory_bytes=128 << 20)
    assert (await jail.run(Program(MUCH[name].encode()), limits)).end_reason is EndReason.OUT_OF_MEMORY


FLOODS = {
    "print": "while True: print('x' * 100000)",
    "print and go on": "import os\nwhile True:\n    try: os.write(1, b'x' * 100000)\n    except OSError: break\nos._exit(0)",
    "errors": "import sys\nwhile True: sys.stderr.write('x' * 100000)",
    "a hole": "import os\nos.lseek(1, 1 << 40, 0)\ntry: os.write(1, b'x')\nexcept OSError: pass\nos.ftruncate(1, 1 << 20)",
}


@pytest.mark.parametrize("name", FLOODS)
async def test_a_flood_of_output_is_cut_and_named(jail: JailSandbox, name: str) -> None:
    run = await jail.run(Program(FLOODS[name].encode()), Limits(wall_seconds=10.0, output_bytes=1 << 20))
    assert run.end_reason is EndReason.OUTPUT_LIMIT
    assert len(run.stdout) <= 1 << 20


CRASHES = {
    "exception": ("1 / 0", 1, None),
    "syntax": ("def", 1, None),
    "null byte": ("x = 1\0", 1, None),
    "exit code": ("import sys\nsys.exit(7)", 7, None),
    "large exit code": ("import os\nos._exit(300)", 44, None),
    "recursion": ("def f(): return f()\nf()", 1, None),
    "segmentation fault": ("import ctypes\nctypes.string_at(0)", None, 11),
    "broken interpreter": ("import ctypes\nctypes.memset(id(int), 0, 400)\nint('1')", None, 11),
}


@pytest.mark.parametrize("name", CRASHES)
async def test_a_crash_is_the_programs_own(jail: JailSandbox, name: str) -> None:
    source, exit_code, signal = CRASHES[name]
    run = await jail.run(Program(source.encode()), Limits(wall_seconds=10.0))
    assert (run.end_reason, run.exit_code, run.signal) == (
        EndReason.EXITED if signal is None else EndReason.CRASHED,
        exit_code,
        signal,
    )


async def test_what_a_run_used_is_reported(jail: JailSandbox) -> None:
    source = b"import time\nx = bytearray(64 << 20)\nstart = time.process_time()\nwhile time.process_time() < start + 0.2: pass"
    run = await jail.run(Program(source), Limits())
    assert 0.2 <= run.cpu_seconds < 2.0
    assert run.seconds >= 0.15
    assert run.peak_memory_bytes > 64 << 20
