"""The dashboard Verifier: what is judged, how fast, and what is stopped?"""

from grafana.panels import Board, lines, processes, quantiles, rate, ratio, row, stacked, stat

VERIFIER = "verifier.md"
ERRORS = "runbook.md#ibtpoverifiererrors"
_STOPPED = 'ibtpo_verifier_verdicts_total{outcome=~"timed_out|memory|output_limit|sandbox_violation"}'
_GLANCE = row(
    "At a glance",
    stacked(
        "Verdicts by kind",
        "suffix:verdicts/s",
        "Verdicts of each kind.",
        VERIFIER,
        (rate("ibtpo_verifier_verdicts_total", "kind"), "{{kind}}"),
    ),
    stacked(
        "Verdicts by outcome",
        "suffix:verdicts/s",
        "Only outcomes that occur; `infrastructure` means that the verifier itself failed.",
        VERIFIER,
        (f"{rate('ibtpo_verifier_verdicts_total', 'kind, outcome')} > 0", "{{kind}} {{outcome}}"),
    ),
    lines(
        "Queue",
        "suffix:items",
        "Items accepted and not yet judged.",
        VERIFIER,
        ("ibtpo_verifier_pending_items", "{{instance}}"),
    ),
    stat(
        "Verdicts",
        "suffix:verdicts/s",
        "Verdicts of all kinds.",
        VERIFIER,
        "sum(ibtpo:verdicts:rate1m)",
    ),
    stat(
        "Right",
        "percentunit",
        "Share of verdicts that are right, over five minutes.",
        VERIFIER,
        ratio('ibtpo_verifier_verdicts_total{outcome="right"}', "ibtpo_verifier_verdicts_total", window="5m"),
    ),
    stat(
        "Failures",
        "percentunit",
        "Share of items that the verifier itself could not judge: never trained on.",
        ERRORS,
        ratio(
            'ibtpo_verifier_verdicts_total{outcome="infrastructure"}',
            "ibtpo_verifier_verdicts_total",
            window="5m",
        ),
        (None, "green"),
        (0.02, "red"),
    ),
    stat(
        "Pending",
        "suffix:items",
        "Items accepted and not yet judged.",
        VERIFIER,
        "sum(ibtpo_verifier_pending_items)",
    ),
    stat(
        "Oldest waiting",
        "s",
        "Age of the oldest batch that waits.",
        VERIFIER,
        "max(ibtpo_verifier_queue_age_seconds)",
    ),
    stat(
        "Verifiers",
        "suffix:processes",
        "Processes that answer.",
        "runbook.md#ibtpotargetdown",
        'sum(up{job="verifier"})',
        (None, "red"),
        (1, "green"),
    ),
)
_TIME = row(
    "Time",
    lines(
        "Time of an item",
        "s",
        "Time to judge an item, without waiting, by kind.",
        VERIFIER,
        *quantiles("ibtpo_verifier_judge_seconds", "kind"),
    ),
    lines(
        "Time of a batch",
        "s",
        "From arrival to the last verdict.",
        VERIFIER,
        *quantiles("ibtpo_verifier_batch_seconds"),
    ),
    lines(
        "Verdicts from the cache",
        "percentunit",
        "Share of items that had been judged before.",
        VERIFIER,
        (ratio("ibtpo_verifier_cache_hits_total", "ibtpo_verifier_verdicts_total", "kind"), "{{kind}}"),
    ),
)
_STOPS = row(
    "What is stopped or refused",
    lines(
        "Programs that the sandbox stopped",
        "suffix:programs/s",
        "By limit: time, memory, output, forbidden system calls.",
        "sandbox.md",
        (rate(_STOPPED, "outcome"), "{{outcome}}"),
    ),
    lines(
        "Workers ended early",
        "suffix:workers/s",
        "Worker processes killed, by kind and reason.",
        "runbook.md#ibtpoverifiertimeouts",
        (rate("ibtpo_verifier_worker_kills_total", "kind, reason"), "{{kind}} {{reason}}"),
    ),
    lines(
        "Refused batches",
        "suffix:batches/s",
        "Refused because the verifier is overloaded, or because it cannot judge a kind.",
        ERRORS,
        (rate("ibtpo_verifier_refused_batches_total", "reason"), "{{reason}}"),
    ),
)
_CALLERS = row(
    "Its callers",
    lines(
        "As the replicas see it",
        "suffix:verdicts/s",
        "Verdicts that replicas asked for, by result, and their requests that failed.",
        ERRORS,
        (rate("ibtpo_rollout_verdicts_total", "result"), "{{result}}"),
        (rate("ibtpo_rollout_verifier_failures_total", "error"), "failed {{error}}"),
    ),
    lines(
        "HTTP answers",
        "suffix:answers/s",
        "Requests answered, by route and status.",
        "protocol.md",
        (rate("ibtpo_verifier_http_requests_total", "route, status"), "{{route}} {{status}}"),
    ),
)
BOARD = Board(
    "ibtpo-verifier",
    "ibtpo: Verifier",
    "Does the verifier keep up, and does it judge?",
    (
        _GLANCE,
        _TIME,
        _STOPS,
        _CALLERS,
        processes("verifier", "operations.md#sizing"),
    ),
)
