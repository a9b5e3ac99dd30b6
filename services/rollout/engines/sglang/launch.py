"""How SGLang is launched: its command line and environment, from the configuration."""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from services.rollout.config import SglangConfig
from services.rollout.engines.sglang.bundle import Bundle
from shared.errors import InvalidInput

_DIE_WITH_PARENT = Path(__file__).with_name("die_with_parent.py")
_SECRETS = frozenset({"IBTPO_TOKEN", "REDIS_URL"})


def check_command(config: SglangConfig) -> None:
    """InvalidInput if this host does not have the launcher: no restart would help."""
    if shutil.which(config.command[0]) is None:
        raise InvalidInput(
            f"rollout.sglang.command: no {config.command[0]!r} here (seen from {Path.cwd()}); give the interpreter of "
            "an environment that has SGLang, or, on a plain CPU, `make sglang-cpu` and start in the checkout's folder"
        )


def build_command(config: SglangConfig, bundle: Bundle, port: int) -> tuple[str, ...]:
    """The launcher's command. The configuration's own `arguments` come last, so that they override ours."""
    options: dict[str, object] = {
        "model-path": bundle.directory,
        "host": "127.0.0.1",
        "port": port,
        "weight-version": bundle.version,
        "schedule-policy": "lpm",
        "log-level-http": "warning",
    }
    if config.tp > 1:
        options["tp-size"] = config.tp
    if config.dp > 1:
        options["dp-size"] = config.dp
    if config.memory_fraction is not None:
        options["mem-fraction-static"] = config.memory_fraction
    flags = (part for name, value in options.items() for part in (f"--{name}", str(value)))
    return (*config.command, *flags, "--enable-metrics", *config.arguments)


def die_with_parent(command: tuple[str, ...], parent: int) -> tuple[str, ...]:
    """The command wrapped so that the kernel kills it when `parent` ends, however that happens."""
    return (sys.executable, "-S", str(_DIE_WITH_PARENT), str(parent), *command)


def build_environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """Ours without the replica's secrets, with a health endpoint that answers at once and unbuffered output. The server
    calls itself while it starts, which it must not do through a proxy."""
    kept = {name: value for name, value in inherited.items() if name not in _SECRETS}
    direct = ",".join(filter(None, (kept.get("NO_PROXY"), kept.get("no_proxy"), "127.0.0.1", "localhost")))
    kept |= {"NO_PROXY": direct, "no_proxy": direct}
    return {**kept, "SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION": "0", "PYTHONUNBUFFERED": "1"}
