"""The dashboard Verifier: what is judged, how fast, and what is stopped?"""

# ruff: noqa: E501 - an expression is read whole

from panels import Board, colored, lines, quantiles, stacked, stat

VERIFIER_PAGE = "verifier.md"
BOARD = Board(
    "ibtpo-verifier",
    "ibtpo: Verifier",
    "Does the verifier keep up, and does it judge?",
    (
        stat("Verdicts", "suffix:verdicts/s", "Of all kinds.", VERIFIER_PAGE, "sum(ibtpo:verdicts:rate1m)"),
        stat(
            "Right",
            "percentunit",
            "Share of verdicts that are right, five minutes.",
            VERIFIER_PAGE,
            'sum(rate(ibtpo_verifier_verdicts_total{outcome="right"}[5m])) / sum(rate(ibtpo_verifier_verdicts_total[5m]))',
        ),
        colored(
            stat(
                "Failures",
                "percentunit",
                "Share of verdicts that the verifier owes: never trained on.",
                "operations.md#ibtpoverifiererrors",
                'sum(rate(ibtpo_verifier_verdicts_total{outcome="infrastructure"}[5m])) '
                "/ sum(rate(ibtpo_verifier_verdicts_total[5m]))",
            ),
            (None, "green"),
            (0.02, "red"),
        ),
        stat(
            "Pending",
            "suffix:items",
            "Items accepted and not yet judged.",
            VERIFIER_PAGE,
            "sum(ibtpo_verifier_pending_items)",
        ),
        stat(
            "Oldest waiting",
            "s",
            "Age of the oldest batch that waits.",
            VERIFIER_PAGE,
            "max(ibtpo_verifier_queue_age_seconds)",
        ),
        colored(
            stat(
                "Verifiers",
                "suffix:processes",
                "Processes that answer.",
                "operations.md#ibtpotargetdown",
                'sum(up{job="verifier"})',
            ),
            (None, "red"),
            (1, "green"),
        ),
        stacked(
            "Verdicts by kind",
            "suffix:verdicts/s",
            "Of each kind.",
            VERIFIER_PAGE,
            ("sum by (kind) (ibtpo:verdicts:rate1m)", "{{kind}}"),
        ),
        stacked(
            "Verdicts by outcome",
            "suffix:verdicts/s",
            "Those that occur; infrastructure means that the verifier itself failed.",
            VERIFIER_PAGE,
            ("sum by (kind, outcome) (ibtpo:verdicts:rate1m) > 0", "{{kind}} {{outcome}}"),
        ),
        lines(
            "Time of an item",
            "s",
            "Judging one item, without its wait, by kind.",
            VERIFIER_PAGE,
            *quantiles("ibtpo_verifier_judge_seconds", "kind"),
        ),
        lines(
            "Time of a batch",
            "s",
            "From arrival to the last verdict.",
            VERIFIER_PAGE,
            *quantiles("ibtpo_verifier_batch_seconds"),
        ),
        lines(
            "Queue",
            "suffix:items",
            "Items accepted and not yet judged.",
            VERIFIER_PAGE,
            ("ibtpo_verifier_pending_items", "{{instance}}"),
        ),
        lines(
            "Known already",
            "percentunit",
            "Share of items whose judgement was in the cache.",
            VERIFIER_PAGE,
            (
                "sum by (kind) (rate(ibtpo_verifier_cache_hits_total[5m])) "
                "/ sum by (kind) (rate(ibtpo_verifier_verdicts_total[5m]))",
                "{{kind}}",
            ),
        ),
        lines(
            "Sandbox: what was stopped",
            "suffix:programs/s",
            "Programs ended by the sandbox: time, memory, output, violations.",
            "sandbox.md",
            (
                'sum by (outcome) (rate(ibtpo_verifier_verdicts_total{outcome=~"timed_out|memory|output_limit|'
                'sandbox_violation"}[5m]))',
                "{{outcome}}",
            ),
        ),
        lines(
            "Workers ended early",
            "suffix:workers/s",
            "Worker processes killed, by kind and reason.",
            "operations.md#ibtpoverifiertimeouts",
            ("sum by (kind, reason) (rate(ibtpo_verifier_worker_kills_total[5m]))", "{{kind}} {{reason}}"),
        ),
        lines(
            "Refusals",
            "suffix:batches/s",
            "Batches refused: overloaded, or a kind that cannot be judged here.",
            "operations.md#ibtpoverifiererrors",
            ("sum by (reason) (rate(ibtpo_verifier_refused_batches_total[5m]))", "{{reason}}"),
        ),
        lines(
            "As the replicas see it",
            "ops",
            "Verdicts asked for by result, and requests that failed.",
            "operations.md#ibtpoverifiererrors",
            ("sum by (result) (rate(ibtpo_rollout_verdicts_total[5m]))", "{{result}}"),
            ("sum by (error) (rate(ibtpo_rollout_verifier_failures_total[5m]))", "failed {{error}}"),
        ),
        lines(
            "HTTP answers",
            "reqps",
            "Requests answered, by route and status.",
            "protocol.md",
            ("sum by (route, status) (rate(ibtpo_verifier_http_requests_total[5m]))", "{{route}} {{status}}"),
        ),
    ),
)
