"""The dashboard SGLang: the servers' own series, and what replicas do with them."""

from panels import Board, colored, lines, quantiles, stat

SGLANG_PAGE = "operations.md#gpus"
BOARD = Board(
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
