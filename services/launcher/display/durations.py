"""Lengths of time and amounts as people read them."""

_UNITS = ("B", "kB", "MB", "GB", "TB")


def format_duration(seconds: float | None) -> str:
    """`1:05:09`, `4:03`; a dash when it is not known."""
    if seconds is None or seconds < 0:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def format_progress(done: float, total: float | None, unit: str) -> str:
    """`12 of 64 problems`, `3.1 of 12.0 GB`."""
    if unit == "bytes":
        power = 0
        while max(done, total or 0.0) >= 1000 and power < len(_UNITS) - 1:
            done, total, power = done / 1000, None if total is None else total / 1000, power + 1
        return " ".join(filter(None, (f"{done:.1f}", f"of {total:.1f}" if total else "", _UNITS[power])))
    return " ".join(filter(None, (f"{done:,.0f}", f"of {total:,.0f}" if total else "", unit)))
