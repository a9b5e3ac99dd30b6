"""Looks at this machine, or this container: shared memory, disks, limits, proxies, GPUs, SGLang."""

import asyncio
import contextlib
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from services.launcher.display.finding import Section

_MIB, _GIB = 1 << 20, 1 << 30
_FEW_FILES = 1024
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_SEES_GPUS = (
    "import torch; n = torch.cuda.device_count() if torch.cuda.is_available() else 0; "
    "print(torch.__version__, n, ', '.join(torch.cuda.get_device_name(i) for i in range(n)), sep='|')"
)


def examine_limits(section: Section, environment: Mapping[str, str]) -> None:
    """Open files, and the proxies of the environment."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    shown = "unlimited" if soft == resource.RLIM_INFINITY else str(soft)
    if soft != resource.RLIM_INFINITY and soft < _FEW_FILES:
        section.warning(
            "open files",
            f"a process may open {shown}; connections, snapshots and workers need {_FEW_FILES} and more",
            f"ulimit -n 65536, ulimits.nofile in Compose; the hard limit is {hard}",
        )
    else:
        section.ok("open files", f"a process may open {shown}")
    proxies = [name for name in _PROXIES if environment.get(name) or environment.get(name.lower())]
    if proxies:
        section.ok("proxies", f"{', '.join(proxies)} set; services reach each other directly, without it")


def examine_shared_memory(section: Section, snapshots: Path, bundle_bytes: int | None, *, holds_weights: bool) -> None:
    """Whether two policies fit where a replica of this machine keeps them."""
    if not holds_weights:
        return
    place = _existing(snapshots)
    try:
        size = os.statvfs(place)
    except OSError as error:
        section.failed("weights", f"{place} cannot be read: {error.strerror}", "see rollout.snapshots")
        return
    total, free = size.f_frsize * size.f_blocks, size.f_frsize * size.f_bavail
    shown = f"{_format(total)} at {place}, {_format(free)} free"
    if bundle_bytes is None:
        if total <= 64 * _MIB:
            section.warning(
                "weights",
                f"{shown}: Docker's default, enough for a policy of 32 MiB",
                "shm_size, ROLLOUT_SHM or sizeLimit",
            )
        else:
            section.ok("weights", shown)
    elif total < 2 * bundle_bytes:
        section.failed(
            "weights",
            f"{shown}; a policy is {_format(bundle_bytes)}, and two must fit",
            f"give {_format(2 * bundle_bytes)} or more: ROLLOUT_SHM in Compose, sizeLimit of `shm` on Kubernetes",
        )
    else:
        section.ok("weights", f"{shown}; two policies of {_format(bundle_bytes)} fit")


def examine_disks(section: Section, runs: Path) -> None:
    """Those that hold runs, where there are any, and temporary files."""
    places = [("temporary", Path(tempfile.gettempdir()), 16 * _MIB)]
    if runs.is_dir():
        places.insert(0, ("runs", runs.absolute(), _GIB))
    for name, path, least in places:
        try:
            size = os.statvfs(path)
        except OSError as error:
            section.failed(f"disk, {name}", f"{path} cannot be read: {error.strerror}", "see its permissions")
            continue
        free = size.f_frsize * size.f_bavail
        shown = f"{_format(free)} free at {path}"
        remedy = "free some, or keep fewer checkpoints (learner.keep_checkpoints)"
        if free < least / 16:
            section.failed(f"disk, {name}", f"full: {shown}", remedy)
        elif free < least:
            section.warning(f"disk, {name}", shown, remedy)
        elif size.f_files and size.f_favail < 100:
            section.failed(
                f"disk, {name}",
                f"{size.f_favail} files may still be made at {path}",
                "delete some: it is out of inodes",
            )
        else:
            section.ok(f"disk, {name}", shown)


async def examine_gpus(section: Section, seconds: float) -> None:
    """What the driver shows, and what torch makes of it, where it is installed."""
    if shutil.which("nvidia-smi") is None:
        section.failed("GPU driver", "no nvidia-smi here", "start the container with GPUs: --gpus, or a device request")
    else:
        code, text = await _run(seconds, "nvidia-smi", "-L")
        devices = [line.partition(" (UUID")[0] for line in text.splitlines() if line.startswith("GPU ")]
        if code == 0 and devices:
            section.ok("GPU driver", f"{len(devices)}: {'; '.join(devices)}")
        else:
            section.failed(
                "GPU driver", f"nvidia-smi -L ends with {code}: {text or 'nothing'}", "see the driver's log, dmesg"
            )
    code, text = await _run(max(seconds, 60.0), sys.executable, "-c", _SEES_GPUS)
    if code != 0:
        reason = text.splitlines()[-1] if text else f"exit code {code}"
        section.ok("GPU, torch", f"not asked: torch is not usable here ({reason})")
        return
    release, count, names = (*text.strip().splitlines()[-1].split("|"), "", "")[:3]
    if count == "0":
        section.failed(
            "GPU, torch",
            f"torch {release} sees none",
            "a +cpu build sees none; else compare its CUDA with the driver's, and CUDA_VISIBLE_DEVICES",
        )
    else:
        section.ok("GPU, torch", f"torch {release} sees {count}: {names}")


async def examine_sglang(section: Section, python: str, seconds: float, *, is_wanted: bool = True) -> None:
    """The release of SGLang that a replica here would start, against those that the engine is tested with. Where none
    `is_wanted`, its absence is no finding."""
    from services.rollout.engines.sglang.client import check_release
    from shared.errors import Unavailable

    if shutil.which(python) is None:
        if is_wanted:
            section.failed("SGLang", f"no {python} here", "rollout.sglang.command names the interpreter to use")
        return
    asks = "import importlib.metadata as m; print(m.version('sglang'))"
    code, text = await _run(seconds, python, "-c", asks)
    if code != 0:
        if is_wanted:
            section.failed("SGLang", f"{python} has none", "use the image rollout-sglang, or name another interpreter")
        return
    release = text.strip().splitlines()[-1]
    try:
        check_release(release)
    except Unavailable as error:
        section.failed("SGLang", *str(error).split("; ", 1))
    else:
        section.ok("SGLang", f"{release}, which the engine supports")


async def _run(seconds: float, *words: str) -> tuple[int | None, str]:
    """Exit code and output of a program, whose standard error counts where it fails; None where it did not end."""
    try:
        process = await asyncio.create_subprocess_exec(
            *words, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
    except OSError as error:
        return None, str(error)
    try:
        async with asyncio.timeout(seconds):
            output, errors = await process.communicate()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        return None, f"no end after {seconds:g} s"
    return process.returncode, (output if process.returncode == 0 else errors or output).decode(
        errors="replace"
    ).strip()


def _existing(path: Path) -> Path:
    """The path, or the nearest directory above it that exists."""
    path = path.absolute()
    return next((one for one in (path, *path.parents) if one.exists()), path)


def _format(count: int) -> str:
    if count >= 10 * _GIB:
        return f"{count / _GIB:.0f} GiB"
    return f"{count / _GIB:.1f} GiB" if count >= _GIB else f"{count / _MIB:.0f} MiB"
