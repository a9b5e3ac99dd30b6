"""Loads data sets of the Hugging Face hub, or of its cache on this machine; needs the extra `data`."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from services.learner.data.reading.tables import choose_split, import_datasets
from services.learner.data.source import HubName
from shared.errors import InvalidInput


def load_hub(hub: HubName) -> Any:
    """The split of a data set. InvalidInput says what exists and what to do."""
    datasets = import_datasets()
    try:
        with _quietly(datasets):
            found = datasets.load_dataset(hub.name, hub.config, revision=hub.revision)
    except Exception as error:  # the library raises what its many parts raise; each is an answer about this name
        raise InvalidInput(explain_failure(hub, error)) from error
    return choose_split(found, hub.split, f"hf:{hub.name}{f':{hub.config}' if hub.config else ''}")


@contextmanager
def _quietly(datasets: Any) -> Iterator[None]:
    """Without what the libraries log, which the error says as well; with bars of downloads on a terminal alone."""
    from huggingface_hub.utils import logging as hub_logging

    loggers = (datasets.logging, hub_logging)
    levels = [one.get_verbosity() for one in loggers]
    hides_bars = not sys.stderr.isatty() and datasets.are_progress_bars_disabled() is False
    for one in loggers:
        one.set_verbosity(logging.CRITICAL)
    if hides_bars:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.set_verbosity(level)
        if hides_bars:
            datasets.enable_progress_bars()


def explain_failure(hub: HubName, error: Exception) -> str:
    """One line: what is wrong with this name, and what to do."""
    text = " ".join(str(error).split())
    name, kinds = f"hf:{hub.name}", {kind.__name__ for kind in type(error).__mro__}
    if "gated" in text.lower() or "GatedRepoError" in kinds:
        return (
            f"{name} is gated: accept its terms at huggingface.co/datasets/{hub.name}, then `hf auth login` or HF_TOKEN"
        )
    if "Config name is missing" in text:
        names = _listed(text)
        return f"{name} has several configurations: name one of {names}, as {name}:{names.partition(',')[0]}"
    if "BuilderConfig" in text:
        return f"{name} has no configuration {hub.config!r}; it has {_listed(text)}"
    if "Dataset scripts are no longer supported" in text:
        return f"{name} is a script, which is not run: give its parquet files, or @refs/convert/parquet"
    if _is_offline(text, kinds):
        return (
            f"{name} is not in the cache of this machine, and the hub is out of reach{_offline_switch()}: fetch it "
            f"where there is a network (`hf download --repo-type dataset {hub.name}`), or give a file"
        )
    if "DatasetNotFoundError" in kinds or "doesn't exist on the Hub" in text:
        revision = f" with revision {hub.revision}" if hub.revision else ""
        return f"there is no {name}{revision} on the hub, or it is private: look at its name, or set HF_TOKEN"
    broken = "; its files are broken, here or there: fetch them again" if "parquet" in text.lower() else ""
    return f"{name} cannot be loaded: {text[:300].rstrip('. ')}{broken}"


def _is_offline(text: str, kinds: set[str]) -> bool:
    signs = ("offline", "Couldn't reach", "Max retries", "ConnectionError", "connection", "resolve host", "timed out")
    return bool(kinds & {"ConnectionError", "OfflineModeIsEnabled", "LocalEntryNotFoundError"}) or any(
        sign in text for sign in signs
    )


def _offline_switch() -> str:
    switches = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
    given = [name for name in switches if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")]
    return f" ({given[0]} is set)" if given else ""


def _listed(text: str) -> str:
    begin, end = text.find("["), text.find("]")
    return text[begin + 1 : end].replace("'", "") if 0 <= begin < end else text[:200]
