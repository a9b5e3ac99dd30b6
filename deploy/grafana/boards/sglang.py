"""The dashboard SGLang: the servers' own series, and what replicas do with them."""

from grafana.panels import Board, lines, processes, quantiles, rate, ratio, row, stat

GPUS = "operations.md#gpus"
_FROM_CACHE = ratio(
    'sglang:realtime_tokens_total{mode="prefill_cache"}', 'sglang:realtime_tokens_total{mode=~"prefill_.*"}', "instance"
)
_GLANCE = row(
    "At a glance",
    lines(
        "Throughput",
        "suffix:tokens/s",
        "Tokens sampled, as SGLang counts them.",
        GPUS,
        ("sum by (instance) (sglang:gen_throughput)", "{{instance}}"),
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
        "KV cache",
        "percentunit",
        "Share of the cache in use.",
        GPUS,
        ("max by (instance) (sglang:token_usage)", "{{instance}}"),
    ),
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
)
_REQUESTS = row(
    "Requests",
    lines(
        "Radix cache",
        "percentunit",
        "Share of prefill tokens that came from the cache.",
        GPUS,
        (_FROM_CACHE, "{{instance}}"),
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
        "Aborted requests",
        "suffix:requests/s",
        "Requests that SGLang gave up.",
        GPUS,
        (rate("sglang:num_aborted_requests_total", "instance"), "{{instance}}"),
    ),
    lines(
        "Starts of the server",
        "suffix:starts",
        "Starts within an hour, by cause.",
        "runbook.md#ibtpoenginerestarts",
        (
            "sum by (instance, cause) (increase(ibtpo_rollout_engine_starts_total[1h]))",
            "{{instance}} {{cause}}",
        ),
    ),
)
_GPUS = row(
    "GPUs, where NVIDIA's DCGM exporter is scraped",
    lines(
        "GPU busy",
        "percentunit",
        "Share of the time in which it computes, of all GPUs whose DCGM exporter is scraped.",
        GPUS,
        ("avg by (Hostname, gpu) (DCGM_FI_DEV_GPU_UTIL) / 100", "{{Hostname}} GPU {{gpu}}"),
    ),
    lines(
        "GPU memory",
        "bytes",
        "Memory in use, of all GPUs whose DCGM exporter is scraped.",
        GPUS,
        ("max by (Hostname, gpu) (DCGM_FI_DEV_FB_USED) * 2^20", "{{Hostname}} GPU {{gpu}}"),
    ),
    lines(
        "GPU power",
        "watt",
        "Power that it draws, of all GPUs whose DCGM exporter is scraped.",
        GPUS,
        ("max by (Hostname, gpu) (DCGM_FI_DEV_POWER_USAGE)", "{{Hostname}} GPU {{gpu}}"),
    ),
)
BOARD = Board(
    "ibtpo-sglang",
    "ibtpo: SGLang",
    "The engines on GPUs, by their own series. Empty while replicas run the embedded engine.",
    (
        _GLANCE,
        _REQUESTS,
        _GPUS,
        processes("rollout", "operations.md#sizing"),
    ),
)
