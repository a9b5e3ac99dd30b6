"""The dashboard Throughput: where does the time go?"""

# ruff: noqa: E501 - an expression is read whole

from panels import Board, colored, last, lines, quantiles, stacked, stat

METHOD = "method.md#diagnostics"
OPERATIONS = "operations.md#scaling"
BOARD = Board(
    "ibtpo-throughput",
    "ibtpo: Throughput",
    "Where does time go, and who waits for whom?",
    (
        stat("Generation", "suffix:tokens/s", "Sampled by all replicas.", OPERATIONS, "ibtpo:generated_tokens:rate1m"),
        stat("Growth", "suffix:trees/s", "Grown by all replicas.", OPERATIONS, "ibtpo:trees:rate1m"),
        colored(
            stat(
                "Replicas serving",
                "suffix:replicas",
                "Live and with weights, as the learner saw them last.",
                "operations.md#ibtponoreplicas",
                last('ibtpo:replicas:last{state="serving"}'),
            ),
            (None, "red"),
            (1, "green"),
        ),
        colored(
            stat(
                "Learner waits",
                "percentunit",
                "Share of a step spent waiting for trees: high, add replicas; near 0, they wait for the learner.",
                OPERATIONS,
                last('ibtpo:learner_phase:ratio5m{phase="intake"}'),
            ),
            (None, "green"),
            (0.3, "yellow"),
        ),
        stat(
            "Staleness",
            "suffix:updates",
            "Updates between a tree's tokens and the learner, on average.",
            OPERATIONS,
            last("ibtpo:staleness:last"),
        ),
        colored(
            stat(
                "Unaccounted tasks",
                "suffix:tasks",
                "fed − ended − outstanding: 0, or something is broken.",
                "operations.md#ibtpotasksunaccounted",
                last("ibtpo:unaccounted_tasks:difference"),
            ),
            (None, "red"),
            (0, "green"),
            (1, "red"),
        ),
        lines(
            "Sampled tokens",
            "suffix:tokens/s",
            "Sampled tokens, in all and by replica.",
            OPERATIONS,
            ("ibtpo:generated_tokens:rate1m", "all"),
            ("sum by (instance) (rate(ibtpo_rollout_generated_tokens_total[1m]))", "{{instance}}"),
        ),
        lines(
            "Trajectories per 1,000 tokens",
            "suffix:trajectories",
            "What trees save: without sharing it is 1,000 / mean length.",
            METHOD,
            ("ibtpo:trajectories_per_1k_tokens:ratio5m", "grown, 5 min"),
            ("ibtpo_learner_trajectories_per_1k_tokens", "last step"),
        ),
        lines(
            "Cache reuse",
            "percentunit",
            "Share of prompt and prefix tokens that came from the engines' prefix caches.",
            OPERATIONS,
            ("ibtpo:cache_hit:ratio5m", "all"),
            (
                'sum by (instance) (rate(ibtpo_rollout_prompt_tokens_total{source="cache"}[5m])) '
                "/ sum by (instance) (rate(ibtpo_rollout_prompt_tokens_total[5m]))",
                "{{instance}}",
            ),
        ),
        lines(
            "Trees in flight",
            "suffix:trees",
            "Trees that each replica is growing.",
            OPERATIONS,
            ("ibtpo_rollout_trees_in_flight", "{{instance}}"),
        ),
        lines("Time of a tree", "s", "From claim to record.", OPERATIONS, *quantiles("ibtpo_rollout_tree_seconds")),
        lines(
            "Queues",
            "suffix:entries",
            "Tasks nobody has taken, tasks being grown, trees the learner has not taken.",
            "operations.md#ibtpoqueuegrowing",
            ("ibtpo_learner_stream_entries", "{{stream}} {{state}}"),
        ),
        lines(
            "Staleness and versions behind",
            "suffix:updates",
            "Mean staleness of a step's trees, and how far each replica is behind what the learner had a minute ago.",
            "operations.md#ibtporeplicastale",
            ("ibtpo_learner_staleness", "staleness"),
            ("ibtpo:replica_behind:versions", "{{instance}} behind"),
        ),
        stacked(
            "Where a step's time goes",
            "percentunit",
            "Waiting for trees, updating, publishing weights.",
            OPERATIONS,
            ("ibtpo:learner_phase:ratio5m", "{{phase}}"),
        ),
        lines(
            "Weight push",
            "s",
            "Time until all replicas had a version, or the deadline.",
            "operations.md#ibtpoweightpushfailing",
            *quantiles("ibtpo_learner_weight_push_seconds"),
        ),
        lines(
            "Weight load and pause",
            "s",
            "Loading one version on the replicas, and the part of it in which SGLang samples no token. The embedded engine "
            "changes its weights between two steps.",
            "operations.md#ibtpoweightpushfailing",
            *quantiles("ibtpo_rollout_weight_load_seconds", name="load"),
            *quantiles("ibtpo_rollout_engine_pause_seconds", name="pause"),
        ),
        stacked(
            "Pushes by result",
            "suffix:pushes/s",
            "Pushes of a version to a replica: loaded, unreachable, refused, superseded.",
            "operations.md#ibtpoweightpushfailing",
            ("sum by (result) (rate(ibtpo_learner_weight_pushes_total[5m]))", "{{result}}"),
        ),
        lines(
            "Requests in the engines",
            "suffix:requests",
            "Decoded now, and waiting for a place.",
            OPERATIONS,
            ("sum by (instance) (ibtpo_rollout_engine_requests_in_flight)", "{{instance}} in flight"),
            ("sum by (instance) (ibtpo_rollout_engine_requests_waiting)", "{{instance}} waiting"),
        ),
        stacked(
            "Tokens by what the embedded engine did",
            "suffix:tokens/s",
            "Generated, prefilled, taken from the cache, evicted, recomputed after new weights.",
            OPERATIONS,
            ("sum by (mode) (rate(ibtpo_rollout_engine_tokens_total[1m]))", "{{mode}}"),
        ),
        lines(
            "Lengths: used and stale",
            "suffix:tokens",
            "Mean answer length of trees used and of trees dropped as stale: a bound that drops the long ones is a bias.",
            "operations.md#ibtpotreesstale",
            (
                "sum(rate(ibtpo_learner_used_trajectory_tokens_sum[5m])) / sum(rate(ibtpo_learner_used_trajectory_tokens_count[5m]))",
                "used",
            ),
            (
                "sum(rate(ibtpo_learner_stale_trajectory_tokens_sum[5m])) / sum(rate(ibtpo_learner_stale_trajectory_tokens_count[5m]))",
                "stale",
            ),
        ),
        lines(
            "Redis unreachable",
            "suffix:failures/s",
            "The learner's tries that found Redis away, or full.",
            "operations.md#ibtporedisunreachable",
            ("sum by (instance) (rate(ibtpo_learner_stream_failures_total[5m]))", "{{instance}}"),
        ),
        lines("Checkpoints", "s", "Time to write one.", "learner.md", *quantiles("ibtpo_learner_checkpoint_seconds")),
    ),
)
