"""A counter whose label values are known shows all of them before the first event."""

from prometheus_client import CollectorRegistry, generate_latest

from shared.runtime.counters import preset_counter


def test_every_combination_of_labels_is_at_zero_from_the_start() -> None:
    registry = CollectorRegistry()
    counter = preset_counter("ends_total", "Ends.", registry, kind=("math", "code"), outcome=("right", "wrong"))
    shown = generate_latest(registry).decode()
    for kind in ("math", "code"):
        for outcome in ("right", "wrong"):
            assert f'ends_total{{kind="{kind}",outcome="{outcome}"}} 0.0' in shown
    counter.labels("math", "right").inc()
    assert registry.get_sample_value("ends_total", {"kind": "math", "outcome": "right"}) == 1
