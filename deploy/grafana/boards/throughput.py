"""The dashboard Throughput: where does the time go?"""

from grafana.panels import Board, FigurePanels, last, lines, mean, processes, quantiles, rate, ratio, row, stacked, stat

from shared.protocol.figures import Shown

SCALING = "operations.md#scaling"
PUSHES = "runbook.md#ibtpoweightpushfailing"
_FROM_CACHE = ratio(
    'ibtpo_rollout_prompt_tokens_total{source="cache"}', "ibtpo_rollout_prompt_tokens_total", "instance"
)
_GROWN = (
    f"1000 * {rate('ibtpo_rollout_draws_total', window='$window')} "
    f"/ ({rate('ibtpo_rollout_generated_tokens_total', window='$window')} > 0)"
)
_USED, _STALE = (mean(f"ibtpo_learner_{end}_trajectory_tokens") for end in ("used", "stale"))
_PHASES = (
    f"{rate('ibtpo_learner_phase_seconds_sum', 'phase', '$window')} "
    f"/ ignoring (phase) group_left () ({rate('ibtpo_learner_phase_seconds_sum', window='$window')} > 0)"
)
STEP_TIME = stacked(
    "Where a step's time goes",
    "percentunit",
    "Waiting for trees, updating, publishing weights, writing checkpoints.",
    SCALING,
    (_PHASES, "{{phase}}"),
)
_FIGURES = FigurePanels(
    Shown.THROUGHPUT,
    {
        "trajectories_per_1k_tokens": ((_GROWN, "grown"),),
        "cache_hit_share": ((_FROM_CACHE, "{{instance}}"),),
        "staleness": (("ibtpo:replica_behind:versions", "{{instance}} behind the learner"),),
    },
)
_GLANCE = row(
    "At a glance",
    lines(
        "Sampled tokens",
        "suffix:tokens/s",
        "Tokens sampled, in all and by replica.",
        SCALING,
        (rate("ibtpo_rollout_generated_tokens_total"), "all"),
        (rate("ibtpo_rollout_generated_tokens_total", "instance"), "{{instance}}"),
    ),
    STEP_TIME,
    *_FIGURES.take("staleness"),
    stat(
        "Generation",
        "suffix:tokens/s",
        "Tokens sampled by all replicas.",
        SCALING,
        "ibtpo:generated_tokens:rate1m",
    ),
    stat("Growth", "suffix:trees/s", "Trees grown by all replicas.", SCALING, "ibtpo:trees:rate1m"),
    stat(
        "Replicas serving",
        "suffix:replicas",
        "Replicas with weights, as the learner last saw them.",
        "runbook.md#ibtponoreplicas",
        last('ibtpo:replicas:last{state="serving"}'),
        (None, "red"),
        (1, "green"),
    ),
    stat(
        "Learner waits",
        "percentunit",
        "Share of a step spent waiting for trees. High: add replicas. Near 0: replicas wait for the learner.",
        SCALING,
        last('ibtpo:learner_phase:ratio5m{phase="intake"}'),
        (None, "green"),
        (0.3, "yellow"),
    ),
    stat(
        "Staleness",
        "suffix:updates",
        "Mean number of updates by which trees are behind the learner.",
        SCALING,
        last("ibtpo:staleness:last"),
    ),
    stat(
        "Unaccounted tasks",
        "suffix:tasks",
        "Tasks fed − ended − outstanding: 0, or ibtpo has a defect.",
        "runbook.md#ibtpotasksunaccounted",
        last("ibtpo:unaccounted_tasks:difference"),
        (None, "red"),
        (0, "green"),
        (1, "red"),
    ),
)
_TRAINING = row(
    "Training",
    *_FIGURES.take("trained_tokens_per_second", "credit_seconds", "peak_memory_gib", "packing_share"),
)
_TREES = row(
    "Trees",
    lines(
        "Trees in flight",
        "suffix:trees",
        "Trees that each replica grows now.",
        SCALING,
        ("ibtpo_rollout_trees_in_flight", "{{instance}}"),
    ),
    lines(
        "Time of a tree",
        "s",
        "From claiming its task to adding the tree to the stream.",
        SCALING,
        *quantiles("ibtpo_rollout_tree_seconds", window="$window"),
    ),
    lines(
        "Queues",
        "suffix:entries",
        "Tasks that no replica has claimed, tasks being grown, trees that the learner has not taken.",
        "runbook.md#ibtpoqueuegrowing",
        ("ibtpo_learner_stream_entries", "{{stream}} {{state}}"),
    ),
    *_FIGURES.take("trajectories_per_1k_tokens", "cache_hit_share"),
    lines(
        "Answer lengths: used and stale",
        "suffix:tokens",
        "Mean answer length in trees used and in trees dropped as stale: dropping the longer ones is a bias.",
        "runbook.md#ibtpotreesstale",
        (_USED, "used"),
        (_STALE, "stale"),
    ),
    *_FIGURES.rest(),
)
_WEIGHTS = row(
    "Weights",
    lines(
        "Weight delivery",
        "s",
        "From an optimizer step until the last live replica served its weights or newer ones, or failed to.",
        PUSHES,
        *quantiles("ibtpo_learner_weight_delivery_seconds", window="$window"),
    ),
    stacked(
        "Weights sent",
        "bytes",
        "Bytes per second to all replicas: differences, and whole bundles.",
        PUSHES,
        (rate("ibtpo_learner_weight_sent_bytes_total", "encoding"), "{{encoding}}"),
    ),
    stacked(
        "Training blocked by publishing",
        "percentunit",
        "Share of the time: copying the weights, reading the act-probe, while two earlier copies are still written, "
        "and for replicas that would leave the staleness bound.",
        "learner.md#publishing-beside-training",
        (rate("ibtpo_learner_publish_blocked_seconds_total", "by"), "{{by}}"),
    ),
    lines(
        "Weight load and pause",
        "s",
        "Loading a version on a replica, and the part of it in which SGLang samples nothing. The embedded engine "
        "changes its weights between two decodes, without a pause.",
        PUSHES,
        *quantiles("ibtpo_rollout_weight_load_seconds", name="load", window="$window"),
        *quantiles("ibtpo_rollout_engine_pause_seconds", name="pause", window="$window"),
    ),
    stacked(
        "Pushes by result",
        "suffix:pushes/s",
        "Loaded, unreachable, refused, or superseded by a newer learner.",
        PUSHES,
        (rate("ibtpo_learner_weight_pushes_total", "result"), "{{result}}"),
    ),
    lines(
        "Checkpoints",
        "s",
        "Time to write a checkpoint.",
        "learner.md",
        *quantiles("ibtpo_learner_checkpoint_seconds", window="$window"),
    ),
)
_ENGINES = row(
    "Engines and Redis",
    stacked(
        "Continuations scored",
        "suffix:continuations/s",
        "Given continuations of POST /v1/scores: scored, failed, or given up by deadline, caller or request.",
        "protocol.md#http",
        (rate("ibtpo_rollout_scores_total", "result"), "{{result}}"),
    ),
    lines(
        "Tokens scored",
        "suffix:tokens/s",
        "Given tokens whose log-probabilities were computed: those posted, and of gold answers at step ends.",
        "protocol.md#http",
        (rate("ibtpo_rollout_scored_tokens_total", "instance"), "{{instance}}"),
    ),
    lines(
        "Requests in the engines",
        "suffix:requests",
        "Requests being decoded, and requests that wait for a slot.",
        SCALING,
        ("sum by (instance) (ibtpo_rollout_engine_requests_in_flight)", "{{instance}} in flight"),
        ("sum by (instance) (ibtpo_rollout_engine_requests_waiting)", "{{instance}} waiting"),
    ),
    stacked(
        "Tokens in the embedded engine",
        "suffix:tokens/s",
        "Generated, prefilled, taken from the cache, evicted, recomputed after new weights.",
        SCALING,
        (rate("ibtpo_rollout_engine_tokens_total", "mode"), "{{mode}}"),
    ),
    lines(
        "Redis unreachable",
        "suffix:failures/s",
        "The learner's calls that found Redis unreachable or full.",
        "runbook.md#ibtporedisunreachable",
        (rate("ibtpo_learner_stream_failures_total", "instance"), "{{instance}}"),
    ),
)
BOARD = Board(
    "ibtpo-throughput",
    "ibtpo: Throughput",
    "Where does the time go, and who waits for whom?",
    (
        _GLANCE,
        _TREES,
        _TRAINING,
        _WEIGHTS,
        _ENGINES,
        processes("learner|rollout", "operations.md#sizing"),
    ),
)
