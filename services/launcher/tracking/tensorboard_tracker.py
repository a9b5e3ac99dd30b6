"""Event files for TensorBoard, in the run's folder; TensorBoard's own writer writes them, without torch."""

import time
from collections.abc import Mapping, Sequence

from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, types_pb2
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from services.launcher.tracking.tracker import Scalar, TrackedRun, TrackedTree

FOLDER = "tensorboard"
_TEXT = summary_pb2.SummaryMetadata(plugin_data=summary_pb2.SummaryMetadata.PluginData(plugin_name="text"))


class TensorboardTracker:
    """Each start is a session: TensorBoard forgets what earlier ones wrote of the steps from its first on."""

    def __init__(self) -> None:
        self._writer: EventFileWriter

    def rewind(self, step: int) -> None:
        """The session that follows does it."""

    def start(self, run: TrackedRun, config: Mapping[str, Scalar]) -> tuple[str, str]:
        directory = run.directory / FOLDER
        self._writer = EventFileWriter(str(directory))
        self._add(event_pb2.Event(step=run.step + 1, session_log=event_pb2.SessionLog(status="START")))
        if not run.id:
            self._add(event_pb2.Event(step=0, summary=hparams_pb(dict(config))))
            self._add_text(0, "config", _table(config))
        self._writer.flush()
        return FOLDER, str(directory)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        values = [summary_pb2.Summary.Value(tag=name, simple_value=value) for name, value in figures.items()]
        event = event_pb2.Event(step=step, summary=summary_pb2.Summary(value=values))
        if "time" in figures:
            event.wall_time = figures["time"]
        self._add(event)
        self._writer.flush()

    def trees(self, step: int, trees: Sequence[TrackedTree]) -> None:
        for number, tree in enumerate(trees, 1):
            self._add_text(step, f"trees/{number}", "\n".join(f"    {line}" for line in tree.text.splitlines()))
        self._writer.flush()

    def finish(self, summary: Mapping[str, Scalar] | None) -> None:
        if summary is not None:
            self._add_text(int(summary.get("steps", 0)), "summary", _table(summary))
        self._writer.close()

    def _add_text(self, step: int, tag: str, markdown: str) -> None:
        text = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, string_val=[markdown.encode()])
        value = summary_pb2.Summary.Value(tag=tag, metadata=_TEXT, tensor=text)
        self._add(event_pb2.Event(step=step, summary=summary_pb2.Summary(value=[value])))

    def _add(self, event: event_pb2.Event) -> None:
        """Dates it now where it is not dated."""
        event.wall_time = event.wall_time or time.time()
        self._writer.add_event(event)


def _table(values: Mapping[str, Scalar]) -> str:
    """As a table in Markdown."""
    return "\n".join(("| | |", "|---|---|", *(f"| {name} | `{value}` |" for name, value in values.items())))
