"""The series that each service exports, as its own classes make them."""

from collections.abc import Iterator
from functools import cache
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families

from services.learner.metrics import LearnerMetrics, StepResult
from services.rollout.engines.embedded.metrics import EmbeddedCounters
from services.rollout.engines.sglang import SglangMetrics
from services.rollout.metrics import RolloutMetrics
from services.verifier.metrics import VerifierMetrics
from shared.protocol.figures import StepFigures
from shared.protocol.status import AccuracyFigures, Evaluation, RunState, RunStatus, SetAccuracy
from shared.tree.draw import WeightVersion

_SGLANG = """
# TYPE sglang:gen_throughput gauge
sglang:gen_throughput 1
# TYPE sglang:token_usage gauge
sglang:token_usage 1
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs 1
# TYPE sglang:num_queue_reqs gauge
sglang:num_queue_reqs 1
# TYPE sglang:num_aborted_requests counter
sglang:num_aborted_requests_total 1
# TYPE sglang:realtime_tokens counter
sglang:realtime_tokens_total{mode="prefill_cache"} 1
sglang:realtime_tokens_total{mode="prefill_compute"} 1
# TYPE sglang:time_to_first_token_seconds histogram
sglang:time_to_first_token_seconds_bucket{le="0.1"} 1
sglang:time_to_first_token_seconds_bucket{le="1"} 1
sglang:time_to_first_token_seconds_bucket{le="+Inf"} 1
# TYPE sglang:e2e_request_latency_seconds histogram
sglang:e2e_request_latency_seconds_bucket{le="1"} 1
sglang:e2e_request_latency_seconds_bucket{le="10"} 1
sglang:e2e_request_latency_seconds_bucket{le="+Inf"} 1
"""
"""Those of SGLang's series that the dashboards read."""


def evaluation() -> Evaluation:
    """An accuracy, whose series there are none of before it is measured."""
    version = WeightVersion(1, 0)
    accuracy = dict.fromkeys(AccuracyFigures.model_fields, 1)
    return Evaluation(step=0, version=version, k=1, sets=(SetAccuracy(name="a", k=1, **accuracy),), **accuracy)


def figures_of_a_step() -> StepFigures:
    """Each is 1."""
    figures: dict[str, Any] = dict.fromkeys(StepFigures.model_fields, 1)
    return StepFigures(**figures | {"own_terms": {"my_pkg.terms:Term": 1.0}})


def metrics_of(learner: LearnerMetrics) -> Iterator[Metric]:
    """The series of the services, except those of their HTTP middleware."""
    for metrics in _by_job(learner).values():
        yield from metrics


def _by_job(learner: LearnerMetrics) -> dict[str, list[Metric]]:
    learner.show_status(lambda: RunStatus(run="r", state=RunState.TRAINING, rank_silent_seconds=(0.0, 0.0)))
    verifier, sglang = VerifierMetrics(CollectorRegistry()), CollectorRegistry()
    verifier.add_kind("math")
    verifier.add_pool("math")
    SglangMetrics(sglang)
    rollout = [*RolloutMetrics().registry.collect(), *sglang.collect(), *EmbeddedCounters().collect()]
    return {"learner": [*learner.registry.collect()], "rollout": rollout, "verifier": [*verifier.registry.collect()]}


@cache
def exported_by_job() -> dict[str, tuple[Metric, ...]]:
    """All series that a dashboard may read, of services in the midst of a run, and of a machine's GPUs."""
    learner = LearnerMetrics()
    learner.record_step(figures_of_a_step(), StepResult.UPDATED)
    learner.record_evaluation(evaluation())
    for counter in (learner.judged_draws, learner.rewards):
        counter.labels("math")
    jobs = _by_job(learner)
    jobs["rollout"] += text_string_to_metric_families(_SGLANG)
    verifier = VerifierMetrics(CollectorRegistry())
    for counter in (verifier.cache_hits, verifier.judge_seconds):
        counter.labels("math")
    counted = ("ibtpo_verifier_cache_hits", "ibtpo_verifier_judge_seconds")
    jobs["verifier"] += [metric for metric in verifier.registry.collect() if metric.name in counted]
    jobs["verifier"] += text_string_to_metric_families(
        "# TYPE ibtpo_verifier_http_requests counter\n"
        'ibtpo_verifier_http_requests_total{route="/v1/verdicts",status="200"} 1\n'
    )
    for metrics in jobs.values():
        metrics += ProcessCollector(registry=None).collect()
    return {job: tuple(metrics) for job, metrics in jobs.items()} | {"gpus": tuple(_gpus())}


def _gpus() -> Iterator[Metric]:
    """As NVIDIA's exporter has them."""
    for name in ("GPU_UTIL", "FB_USED", "POWER_USAGE"):
        family = GaugeMetricFamily(f"DCGM_FI_DEV_{name}", name, labels=["Hostname", "gpu"])
        family.add_metric(["node", "0"], 1)
        yield family
