"""The dashboard SGLang: the servers' own series, and what replicas do with them."""

from grafana.panels import Board, lines, quantiles, rate, ratio, stat

GPUS = "operations.md#gpus"
_FROM_CACHE = ratio(
    'sglang:realtime_tokens_total{mode="prefill_cache"}', 'sglang:realtime_tokens_total{mode=~"prefill_.*"}', "instance"
)
BOARD = Board(
    "ibtpo-sglang",
    "ibtpo: SGLang",
    "The engines on GPUs, by their own series. Empty while replicas run the embedded engine.",
    (
        stat(
            "Engines up",
            "suffix:engines",
            "SGLang servers that serve now.",
            GPUS,
            "sum(ibtpo_rollout_engine_up)",
            (None, "red"),
            (1, "green"),
        ),
        stat("Generation", "suffix:tokens/s", "As SGLang counts it.", GPUS, "sum(sglang:gen_throughput)"),
        stat(
            "KV cache used",
            "percentunit",
            "Share of the cache in use on the fullest server.",
            GPUS,
            "max(sglang:token_usage)",
        ),
        lines(
            "Requests",
            "suffix:requests",
            "Running and waiting in SGLang.",
            GPUS,
            ("sum by (instance) (sglang:num_running_reqs)", "{{instance}} running"),
            ("sum by (instance) (sglang:num_queue_reqs)", "{{instance}} waiting"),
        ),
        lines(
            "Throughput",
            "suffix:tokens/s",
            "Tokens sampled, as SGLang counts them.",
            GPUS,
            ("sum by (instance) (sglang:gen_throughput)", "{{instance}}"),
        ),
        lines(
            "Radix cache",
            "percentunit",
            "Share of prefill tokens that came from the cache.",
            GPUS,
            (_FROM_CACHE, "{{instance}}"),
        ),
        lines(
            "KV cache",
            "percentunit",
            "Share of the cache in use.",
            GPUS,
            ("max by (instance) (sglang:token_usage)", "{{instance}}"),
        ),
        lines(
            "Time to first token",
            "s",
            "As SGLang measures it.",
            GPUS,
            *quantiles("sglang:time_to_first_token_seconds"),
        ),
        lines(
            "Time of a request",
            "s",
            "As SGLang measures it.",
            GPUS,
            *quantiles("sglang:e2e_request_latency_seconds"),
        ),
        lines(
            "Starts of the server",
            "suffix:starts",
            "Starts within an hour, by cause.",
            "operations.md#ibtpoenginerestarts",
            ("sum by (instance, cause) (increase(ibtpo_rollout_engine_starts_total[1h]))", "{{instance}} {{cause}}"),
        ),
        lines(
            "Aborted requests",
            "reqps",
            "Requests that SGLang gave up.",
            GPUS,
            (rate("sglang:num_aborted_requests_total", "instance"), "{{instance}}"),
        ),
    ),
)
