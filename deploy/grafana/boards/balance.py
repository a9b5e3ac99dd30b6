"""The dashboard Balance: is it learning, and is it balanced?"""

# ruff: noqa: E501 - an expression is read whole

from panels import Board, colored, last, lines, named, points, quantiles, stacked, stat

METHOD = "method.md#diagnostics"
BOARD = Board(
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
