"""How far the loading of a model's weights is, as transformers counts them."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias, cast

from shared.runtime.logs import event_logger

log = event_logger(__name__)
_SECONDS = 1.0
_Bar: TypeAlias = Callable[..., Any]


@contextmanager
def log_loading(model: Path) -> Iterator[None]:
    """Writes a line into the service's log each second in which weights are read in the block: `done` of `total`."""
    transformers_logging: Any = import_module("transformers.utils.logging")  # takes seconds: only who loads has it

    def make_bar(bar: _Bar, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        first, *others = arguments or (None,)
        return bar(first and _logged(first, str(model)), *others, **options)

    log.info("loading_model", model=str(model))
    before = transformers_logging.set_tqdm_hook(make_bar)
    try:
        yield
    finally:
        transformers_logging.set_tqdm_hook(before)


def _logged(items: Iterable[object], model: str) -> Iterator[object]:
    total = len(cast("list[object]", items)) if hasattr(items, "__len__") else None
    began = said = time.monotonic()
    for done, item in enumerate(items):
        yield item
        if time.monotonic() - said >= _SECONDS:
            said = time.monotonic()
            left = (said - began) / (done + 1) * (total - done - 1) if total else None
            log.info("loading_weights", model=model, done=done + 1, total=total, unit="tensors", seconds_left=left)
