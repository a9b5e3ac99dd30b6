"""What the dashboards show: every panel with its queries, unit, meaning and page of the docs."""

# ruff: noqa: E501 - an expression is read whole

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Query:
    """One line, or one group of lines, of a panel."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture. `docs` is a page, with an anchor, below docs/; `colors` are those of a number from each value on,
    the first from None, which is below all."""

    title: str
    queries: tuple[Query, ...]
    unit: str
    description: str
    docs: str
    is_stat: bool = False
    is_named: bool = False
    colors: tuple[tuple[float | None, str], ...] = ()
    is_points: bool = False
    is_stacked: bool = False
    width: int = 8


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard."""

    uid: str
    title: str
    description: str
    panels: tuple[Panel, ...]


def lines(title: str, unit: str, description: str, docs: str, *queries: tuple[str, str]) -> Panel:
    """A panel of lines over time."""
    return Panel(title, tuple(Query(*one) for one in queries), unit, description, docs)


def points(title: str, unit: str, description: str, docs: str, *queries: tuple[str, str]) -> Panel:
    """A panel of points over time: each step's own value, without lines that would suggest a trend."""
    return Panel(title, tuple(Query(*one) for one in queries), unit, description, docs, is_points=True)


def stacked(title: str, unit: str, description: str, docs: str, *queries: tuple[str, str]) -> Panel:
    """A panel of areas that add up."""
    return Panel(title, tuple(Query(*one) for one in queries), unit, description, docs, is_stacked=True)


def stat(title: str, unit: str, description: str, docs: str, expr: str, legend: str = "") -> Panel:
    """One number."""
    return Panel(title, (Query(expr, legend),), unit, description, docs, is_stat=True, width=4)


def named(panel: Panel) -> Panel:
    """The stat with the names of its series in place of their values."""
    return replace(panel, is_named=True)


def colored(panel: Panel, *colors: tuple[float | None, str]) -> Panel:
    """The stat in the color of its value."""
    return replace(panel, colors=colors)


def last(series: str) -> str:
    """What the learner said last: it is gone when the run has ended."""
    return f"last_over_time({series}[6h])"


def quantiles(metric: str, by: str = "", name: str = "") -> tuple[tuple[str, str], ...]:
    """Median and 95th percentile of a histogram, perhaps by a label, perhaps with a name before them."""
    labels = f"le, {by}" if by else "le"
    legend = f" {{{{{by}}}}}" if by else ""
    inside = f"sum by ({labels}) (rate({metric}_bucket[5m]))"
    return tuple((f"histogram_quantile({q}, {inside})", f"{name} p{q * 100:g}{legend}".strip()) for q in (0.5, 0.95))


METHOD = "method.md#diagnostics"
BALANCE = Board(
    "ibtpo-balance",
    "ibtpo: Balance",
    "Is it learning, and is it balanced: do steps explore and decide at once?",
    (
        named(
            stat(
                "State",
                "none",
                "What the run is doing, or how it ended.",
                "architecture.md",
                "ibtpo:run_state:last == 1",
                "{{state}}",
            )
        ),
        stat("Step", "suffix:steps", "Training steps taken.", "learner.md", last("ibtpo:run_step:last")),
        stat(
            "Held-out accuracy",
            "percentunit",
            "avg@k of the last evaluation: the figure to judge a run by.",
            METHOD,
            last('ibtpo:held_out_accuracy:last{measure="avg_at_k"}'),
        ),
        colored(
            stat(
                "Eff-Rate, 5 minutes",
                "percentunit",
                "Share of trees with mixed rewards: what there is to learn from.",
                METHOD,
                last("ibtpo:eff_rate:avg5m"),
            ),
            (None, "red"),
            (0.1, "green"),
        ),
        colored(
            stat(
                "Cov(η₁, η₂), 5 minutes",
                "none",
                "Near 0 while Eff-Rate is high: the balance is lost.",
                "operations.md#ibtpobalancelost",
                last("ibtpo:cov_eta:avg5m"),
            ),
            (None, "red"),
            (0.005, "green"),
        ),
        named(
            colored(
                stat(
                    "What is broken",
                    "none",
                    "The alerts that are firing now; each is a heading of the runbook.",
                    "operations.md#runbook",
                    'sum by (alertname) (ALERTS{alertstate="firing", alertname=~"Ibtpo.*"}) '
                    'or on () label_replace(vector(0), "alertname", "nothing", "", "")',
                    "{{alertname}}",
                ),
                (None, "green"),
                (1, "red"),
            )
        ),
        lines(
            "IB-Score",
            "none",
            "Mean IB-Score over nodes with two draws or more, of the last step.",
            METHOD,
            ("ibtpo_learner_ib_score", "last step"),
            ("avg_over_time(ibtpo_learner_ib_score[10m])", "mean of 10 min"),
        ),
        lines(
            "IB-Score of trees",
            "none",
            "How the trees' mean IB-Scores are spread.",
            METHOD,
            *quantiles("ibtpo_rollout_ib_score"),
        ),
        points(
            "Cov(η₁, η₂) of each step",
            "none",
            "Mean covariance of what a step explores (η₁) and decides (η₂), over nodes whose draws differ in value: its "
            "scatter over time, and the mean of ten minutes. It tends to 0 when the balance is lost, and when all is solved.",
            METHOD,
            ("ibtpo_learner_cov_eta", "step"),
            ("avg_over_time(ibtpo_learner_cov_eta[10m])", "mean of 10 min"),
        ),
        lines(
            "Nodes to balance",
            "suffix:nodes",
            "Nodes whose draws differ in value in the last step: Cov means nothing where they are few.",
            METHOD,
            ("ibtpo_learner_cov_eta_nodes", "nodes"),
        ),
        lines(
            "Eff-Rate",
            "percentunit",
            "Share of trees whose rewards are not all equal: only these teach.",
            METHOD,
            ("ibtpo_learner_eff_rate", "last step"),
            ("avg_over_time(ibtpo_learner_eff_rate[10m])", "mean of 10 min"),
        ),
        lines(
            "Avg-Rate and root value",
            "percentunit",
            "Mean reward of leaves (biased by where trees branch), and of the first draws of trees (unbiased).",
            METHOD,
            ("ibtpo_learner_avg_rate", "Avg-Rate"),
            ("ibtpo_learner_root_value", "root value"),
        ),
        lines(
            "Held-out accuracy: the probe",
            "percentunit",
            "avg@k and pass@k on held-out problems, through the same replicas that train.",
            METHOD,
            (last("ibtpo:held_out_accuracy:last"), "{{measure}}"),
        ),
        lines(
            "Reward by kind",
            "percentunit",
            "Mean reward of judged draws by the verifier's kind, over five minutes.",
            "verifier.md",
            (
                "sum by (kind) (rate(ibtpo_learner_rewards_total[5m])) "
                "/ sum by (kind) (rate(ibtpo_learner_judged_draws_total[5m]))",
                "{{kind}}",
            ),
        ),
        lines(
            "Parts of the advantage",
            "none",
            "Mean |A_GL| and mean |λ·A_IB| over nodes of trees with a signal: how much of the credit is information.",
            "method.md#credit",
            ("ibtpo_learner_advantage_global", "|A_GL|"),
            ("ibtpo_learner_advantage_local", "|λ·A_IB|"),
        ),
        lines(
            "Entropy and KL",
            "suffix:nats/token",
            "The policy's entropy, and its k3 divergence from the model the run began with.",
            "learner.md",
            ("ibtpo_learner_entropy", "entropy"),
            ("ibtpo_learner_kl", "KL"),
        ),
        lines(
            "Gradient and clip",
            "none",
            "Norm of the gradient before clipping, and the share of tokens that the clip left without one.",
            "learner.md",
            ("ibtpo_learner_grad_norm", "gradient norm"),
            ("ibtpo_learner_clip_share", "clip share"),
        ),
        lines(
            "Engine gap",
            "suffix:nats",
            "Mean |learner − engine| log-probability over tokens of the same weights: a rise means that the engine "
            "no longer samples what the learner trains.",
            "learner.md",
            ("ibtpo_learner_engine_gap", "gap"),
        ),
        stacked(
            "How tasks ended",
            "suffix:tasks/s",
            "Tasks by their end: used, skipped (no signal), stale, failed. fed = their sum + outstanding, always.",
            "architecture.md#contracts",
            ("sum by (end) (rate(ibtpo_learner_tasks_ended_total[5m]))", "{{end}}"),
        ),
    ),
)

OPERATIONS = "operations.md#scaling"
THROUGHPUT = Board(
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
                "Books",
                "suffix:tasks",
                "fed − ended − outstanding: 0, or something is broken.",
                "operations.md#ibtpobooksunbalanced",
                last("ibtpo:books:difference"),
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
            "Pushes of a version to a replica: loaded, unreached, refused, superseded.",
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
            "Redis out of reach",
            "suffix:failures/s",
            "The learner's tries that found Redis away, or full.",
            "operations.md#ibtporedisaway",
            ("sum by (instance) (rate(ibtpo_learner_stream_failures_total[5m]))", "{{instance}}"),
        ),
        lines("Checkpoints", "s", "Time to write one.", "learner.md", *quantiles("ibtpo_learner_checkpoint_seconds")),
    ),
)

VERIFIER_PAGE = "verifier.md"
VERIFIER = Board(
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

SGLANG_PAGE = "operations.md#gpus"
SGLANG = Board(
    "ibtpo-sglang",
    "ibtpo: SGLang",
    "The engines on GPUs, by their own series. Empty while replicas run the embedded engine.",
    (
        colored(
            stat(
                "Engines up", "suffix:engines", "Servers that serve now.", SGLANG_PAGE, "sum(ibtpo_rollout_engine_up)"
            ),
            (None, "red"),
            (1, "green"),
        ),
        stat("Generation", "suffix:tokens/s", "As SGLang counts.", SGLANG_PAGE, "sum(sglang:gen_throughput)"),
        stat(
            "KV cache used",
            "percentunit",
            "Share of the cache's tokens, the fullest.",
            SGLANG_PAGE,
            "max(sglang:token_usage)",
        ),
        lines(
            "Requests",
            "suffix:requests",
            "Running and waiting in SGLang.",
            SGLANG_PAGE,
            ("sum by (instance) (sglang:num_running_reqs)", "{{instance}} running"),
            ("sum by (instance) (sglang:num_queue_reqs)", "{{instance}} waiting"),
        ),
        lines(
            "Throughput",
            "suffix:tokens/s",
            "Sampled tokens, as SGLang counts.",
            SGLANG_PAGE,
            ("sum by (instance) (sglang:gen_throughput)", "{{instance}}"),
        ),
        lines(
            "Radix cache",
            "percentunit",
            "Share of prefill tokens that came from the cache.",
            SGLANG_PAGE,
            (
                'sum by (instance) (rate(sglang:realtime_tokens_total{mode="prefill_cache"}[5m])) '
                '/ sum by (instance) (rate(sglang:realtime_tokens_total{mode=~"prefill_.*"}[5m]))',
                "{{instance}}",
            ),
        ),
        lines(
            "KV cache",
            "percentunit",
            "Share in use.",
            SGLANG_PAGE,
            ("max by (instance) (sglang:token_usage)", "{{instance}}"),
        ),
        lines(
            "Time to first token",
            "s",
            "As SGLang measures.",
            SGLANG_PAGE,
            *quantiles("sglang:time_to_first_token_seconds"),
        ),
        lines(
            "Time of a request",
            "s",
            "As SGLang measures.",
            SGLANG_PAGE,
            *quantiles("sglang:e2e_request_latency_seconds"),
        ),
        lines(
            "Starts of the server",
            "suffix:starts",
            "In an hour, by cause.",
            "operations.md#ibtpoenginerestarts",
            ("sum by (instance, cause) (increase(ibtpo_rollout_engine_starts_total[1h]))", "{{instance}} {{cause}}"),
        ),
        lines(
            "Aborted requests",
            "reqps",
            "Requests that SGLang gave up.",
            SGLANG_PAGE,
            ("sum by (instance) (rate(sglang:num_aborted_requests_total[5m]))", "{{instance}}"),
        ),
    ),
)

BOARDS = {"balance": BALANCE, "throughput": THROUGHPUT, "verifier": VERIFIER, "sglang": SGLANG}
