"""How SGLang is launched: its command line and environment, from the configuration."""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from services.rollout.config import SglangConfig
from services.rollout.engines.sglang.bundle import Bundle
from shared.errors import InvalidInput

DIE_WITH_PARENT = Path(__file__).with_name("die_with_parent.py")
_SECRETS = frozenset({"IBTPO_TOKEN", "REDIS_URL"})


def check_command(config: SglangConfig) -> None:
    """InvalidInput when the launcher is not on this machine: no restart would bring it here."""
    if shutil.which(config.command[0]) is None:
        raise InvalidInput(
            f"rollout.sglang.command: no {config.command[0]!r} here (seen from {Path.cwd()}); give the interpreter of "
            "an environment that has SGLang, or, on a plain CPU, `make sglang-cpu` and start in the checkout's folder"
        )


def build_command(config: SglangConfig, bundle: Bundle, port: int) -> tuple[str, ...]:
    """The launcher's command. What the configuration's own `arguments` say comes last, so that it holds."""
    own: dict[str, object] = {
        "model-path": bundle.directory,
        "host": "127.0.0.1",
        "port": port,
        "weight-version": bundle.version,
        "schedule-policy": "lpm",
        "log-level-http": "warning",
    }
    if config.tp > 1:
        own["tp-size"] = config.tp
    if config.dp > 1:
        own["dp-size"] = config.dp
    if config.memory_fraction is not None:
        own["mem-fraction-static"] = config.memory_fraction
    options = (part for name, value in own.items() for part in (f"--{name}", str(value)))
    return (*config.command, *options, "--enable-metrics", *config.arguments)


def die_with_parent(command: tuple[str, ...], parent: int) -> tuple[str, ...]:
    """The command as a process that the kernel ends when `parent` ends, however that goes."""
    return (sys.executable, "-S", str(DIE_WITH_PARENT), str(parent), *command)


def build_environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """Ours, with a health endpoint that answers at once. The replica's secrets are not passed on."""
    kept = {name: value for name, value in inherited.items() if name not in _SECRETS}
    return {**kept, "SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION": "0", "PYTHONUNBUFFERED": "1"}
