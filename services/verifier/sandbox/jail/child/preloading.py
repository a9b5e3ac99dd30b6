"""What the fork-server loads before it forks: its children inherit it, and can make no further code executable."""

import _ctypes
import _sitebuiltins
import builtins
import importlib
import io
import os
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, cast

_BUFFER_BYTES = 1 << 16

# What programs import most: a child has these without reading a file.
_COMMON_MODULES = (
    "abc array ast base64 bisect cmath collections.abc copy dataclasses datetime decimal enum fractions functools "
    "hashlib heapq inspect io itertools json math numbers operator queue random re statistics string struct textwrap "
    "time typing"
)
# Extension modules that no jailed program can use: tests of Python, terminals, sound, passwords.
_USELESS = (
    *("_test", "xx", "_xx", "_ctypes_test"),
    *("_tkinter", "_curses", "readline", "nis", "ossaudiodev", "spwd", "_crypt"),
)
# The C library loads it when a thread ends early.
_LIBGCC = "libgcc_s.so.1"
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def preload() -> None:
    """Imports the common modules and opens the standard streams."""
    for name in _COMMON_MODULES.split():
        importlib.import_module(name)
    # `site` is off, since it would run what is installed; programs know these names from it.
    builtins.quit = _sitebuiltins.Quitter("quit", "Ctrl-D (i.e. EOF)")
    builtins.exit = _sitebuiltins.Quitter("exit", "Ctrl-D (i.e. EOF)")
    _open_standard_streams()
    sys.set_int_max_str_digits(0)  # the limits of time and memory are enough
    sys.path[:] = [path for path in sys.path if path.startswith(sys.base_prefix)]


def preload_libraries() -> None:
    """Maps the code of the standard library's extension modules; a child that imports one finds it mapped."""
    folder = os.path.join(sysconfig.get_path("platstdlib"), "lib-dynload")
    if os.path.isdir(folder):
        for name in sorted(os.listdir(folder)):
            if not name.startswith(_USELESS):
                _map_library(os.path.join(folder, name))
    _map_library(_LIBGCC)


def preload_packages(names: Sequence[str], folders: Sequence[str]) -> tuple[str, ...]:
    """Imports packages from the folders, and maps all their code; returns what a child must be able to read.

    They come with what they import. Raises SystemExit, with the remedy, for what cannot be imported or starts threads:
    a fork would lose them.
    """
    if not names:
        return ()
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    sys.path.extend(folders)
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:  # whatever a package raises at its import
            raise SystemExit(
                f"code.packages: {name!r} cannot be imported ({type(error).__name__}: {error}); install it beside the "
                "verifier, or name the folder that holds it (code.packages_path)"
            ) from error
        if len(os.listdir("/proc/self/task")) > 1:
            raise SystemExit(f"code.packages: {name!r} starts threads when it is imported; it cannot be offered")
    del sys.path[-len(folders) :]
    if (tempfile := sys.modules.get("tempfile")) is not None:
        tempfile.tempdir = None  # type: ignore[attr-defined]  # a package asked for it; a child's is where it works
    readable = tuple(dict.fromkeys(path for folder in folders for path in _find_loaded(folder)))
    for path in readable:
        for library in _find_libraries(path):
            _map_library(library)
    return readable


def refuse_writable_code() -> None:
    """Raises SystemExit if this process has memory that is both written and run: its children would inherit it."""
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        found = [line for line in maps if {"w", "x"} <= set(line.split()[1])]
    if found:
        raise SystemExit(
            f"memory that is both written and run: {found[0].strip()}; of code.packages, leave out what compiles code "
            "when it is imported, or has an executable stack"
        )


def _find_loaded(folder: str) -> Iterator[str]:
    """The packages under the folder that were imported, with the libraries that wheels keep beside them."""
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    for file in files:
        if file and file.startswith(f"{folder}/"):
            top = os.path.join(folder, file[len(folder) + 1 :].partition("/")[0])
            yield top
            if os.path.isdir(f"{top}.libs"):
                yield f"{top}.libs"


def _find_libraries(path: str) -> Iterator[str]:
    for folder, _, names in os.walk(path):
        yield from (os.path.join(folder, name) for name in sorted(names) if ".so" in name)


def _map_library(path: str) -> None:
    with suppress(OSError):  # it needs another library that is missing: then no child can import it either
        _ctypes.dlopen(path, os.RTLD_LAZY)


def _open_standard_streams() -> None:
    """Opens streams over descriptors 0..2 once, before any fork; a child has its own files behind these numbers."""
    sys.stdin = sys.__stdin__ = _text_stream(0, "r", "surrogateescape")  # type: ignore[misc]
    sys.stdout = sys.__stdout__ = _text_stream(1, "w", "surrogateescape")  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _text_stream(2, "w", "backslashreplace")  # type: ignore[misc]


def _text_stream(descriptor: int, mode: str, errors: str) -> "io.TextIOWrapper[Any]":
    stream = open(descriptor, mode, _BUFFER_BYTES, encoding="utf-8", errors=errors, closefd=False)  # noqa: SIM115 - as long as the process
    return cast("io.TextIOWrapper[Any]", stream)
