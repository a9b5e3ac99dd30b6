"""The dashboard Balance: is it learning, and is it balanced?"""

from grafana.boards.throughput import STEP_TIME
from grafana.panels import Board, FigurePanels, last, lines, processes, quantiles, rate, row, stacked, stat

from shared.protocol.figures import Shown

_FIGURES = FigurePanels(Shown.BALANCE)
METHOD = "method.md#diagnostics"
HELD_OUT = "evaluation.md#figures"
FIRING = (
    'sum by (alertname) (ALERTS{alertstate="firing", alertname=~"Ibtpo.*"}) '
    'or on () label_replace(vector(0), "alertname", "nothing", "", "")'
)
_GLANCE = row(
    "At a glance",
    lines(
        "Held-out accuracy over time",
        "percentunit",
        "avg@k on each held-out set, answered by the replicas that train.",
        HELD_OUT,
        ('ibtpo:held_out_set_accuracy:last{measure="avg_at_k"}', "{{set}}"),
    ),
    *_FIGURES.take("root_value"),
    STEP_TIME,
    stat(
        "State",
        "none",
        "What the run does, or how it ended.",
        "architecture.md",
        "ibtpo:run_state:last == 1",
        name="{{state}}",
    ),
    stat("Step", "suffix:steps", "Training steps taken.", "learner.md", last("ibtpo:run_step:last")),
    stat(
        "Held-out accuracy",
        "percentunit",
        "avg@k of the last evaluation, averaged over sets: judge a run by this.",
        HELD_OUT,
        last('ibtpo:held_out_accuracy:last{measure="avg_at_k"}'),
    ),
    stat(
        "Eff-Rate, 5 minutes",
        "percentunit",
        "Share of trees with unequal rewards: only these teach.",
        METHOD,
        last("ibtpo:eff_rate:avg5m"),
        (None, "red"),
        (0.1, "green"),
    ),
    stat(
        "Cov(η₁, η₂), 5 minutes",
        "none",
        "Near 0 while Eff-Rate is high: the balance is lost.",
        "runbook.md#ibtpobalancelost",
        last("ibtpo:cov_eta:avg5m"),
        (None, "red"),
        (0.005, "green"),
    ),
    stat(
        "Firing alerts",
        "none",
        "The alerts that fire now; each is a heading of the runbook.",
        "runbook.md#runbook",
        FIRING,
        (None, "green"),
        (1, "red"),
        name="{{alertname}}",
    ),
)
_UPDATES = row(
    "Updates of the policy",
    *_FIGURES.take("entropy", "kl", "grad_norm", "clip_share", "engine_gap"),
    lines(
        "Loss terms of your own",
        "none",
        "Mean over tokens of each loss term of your own in the last step, by its import path.",
        "own-parts.md#a-loss-term",
        ("ibtpo_learner_own_term", "{{term}}"),
    ),
)
_DIAGNOSTICS = row(
    "Diagnostics of the information bottleneck",
    *_FIGURES.take("eff_rate", "cov_eta", "cov_eta_nodes", "ib_score"),
    lines(
        "IB-Score of trees",
        "none",
        "Spread of the trees' mean IB-Scores.",
        METHOD,
        *quantiles("ibtpo_rollout_ib_score", window="$window"),
    ),
    *_FIGURES.take("advantage_global"),
)
_TASKS = row(
    "Tasks and rewards",
    lines(
        "Held-out pass@k and maj@k",
        "percentunit",
        "Share of problems with a right answer, and reward of what most answers say, on each held-out set.",
        HELD_OUT,
        ('ibtpo:held_out_set_accuracy:last{measure=~"pass_at_k|maj_at_k"}', "{{set}} {{measure}}"),
    ),
    lines(
        "Reward by kind",
        "none",
        "Mean reward of judged draws by the verifier's kind, over the window.",
        "verifier.md",
        (
            f"{rate('ibtpo_learner_rewards_total', 'kind', '$window')} "
            f"/ ({rate('ibtpo_learner_judged_draws_total', 'kind', '$window')} > 0)",
            "{{kind}}",
        ),
    ),
    stacked(
        "How tasks ended",
        "suffix:tasks/s",
        "Used, skipped (no signal), stale or failed. At every moment: tasks fed = their sum + outstanding tasks.",
        "architecture.md#contracts",
        (rate("ibtpo_learner_tasks_ended_total", "end"), "{{end}}"),
    ),
    *_FIGURES.rest(),
)
BOARD = Board(
    "ibtpo-balance",
    "ibtpo: Balance",
    "Does the policy learn, and do steps both explore and decide?",
    (
        _GLANCE,
        _UPDATES,
        _DIAGNOSTICS,
        _TASKS,
        processes("learner|rollout|verifier", "operations.md#sizing"),
    ),
)
