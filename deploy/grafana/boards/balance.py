"""The dashboard Balance: is it learning, and is it balanced?"""

from grafana.panels import Board, figure_panels, last, lines, quantiles, ratio, stacked, stat

from shared.protocol.figures import Shown

METHOD = "method.md#diagnostics"
FIRING = (
    'sum by (alertname) (ALERTS{alertstate="firing", alertname=~"Ibtpo.*"}) '
    'or on () label_replace(vector(0), "alertname", "nothing", "", "")'
)
BOARD = Board(
    "ibtpo-balance",
    "ibtpo: Balance",
    "Does the policy learn, and do steps both explore and decide?",
    (
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
            "avg@k of the last evaluation: judge a run by this.",
            METHOD,
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
            "operations.md#ibtpobalancelost",
            last("ibtpo:cov_eta:avg5m"),
            (None, "red"),
            (0.005, "green"),
        ),
        stat(
            "Firing alerts",
            "none",
            "The alerts that fire now; each is a heading of the runbook.",
            "operations.md#runbook",
            FIRING,
            (None, "green"),
            (1, "red"),
            name="{{alertname}}",
        ),
        lines(
            "Held-out accuracy over time",
            "percentunit",
            "avg@k and pass@k on held-out problems, answered by the replicas that train.",
            METHOD,
            (last("ibtpo:held_out_accuracy:last"), "{{measure}}"),
        ),
        *figure_panels(Shown.BALANCE),
        lines(
            "IB-Score of trees",
            "none",
            "Spread of the trees' mean IB-Scores.",
            METHOD,
            *quantiles("ibtpo_rollout_ib_score"),
        ),
        lines(
            "Reward by kind",
            "percentunit",
            "Mean reward of judged draws by the verifier's kind, over five minutes.",
            "verifier.md",
            (ratio("ibtpo_learner_rewards_total", "ibtpo_learner_judged_draws_total", "kind"), "{{kind}}"),
        ),
        stacked(
            "How tasks ended",
            "suffix:tasks/s",
            "Used, skipped (no signal), stale or failed. At every moment: tasks fed = their sum + outstanding tasks.",
            "architecture.md#contracts",
            ("sum by (end) (rate(ibtpo_learner_tasks_ended_total[5m]))", "{{end}}"),
        ),
    ),
)
