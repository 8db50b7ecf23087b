"""How numbers stand in the verbs' tables."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastseg.profiler.measure import Timing


def spread(timing: "Timing") -> str:
    """Median and, in brackets, p20 to p80 in milliseconds."""
    return f"{_digits(timing.ms)} [{_digits(timing.ms20)}-{_digits(timing.ms80)}]"


def megabytes(count: float) -> str:
    """Bytes in units of 1e6, as short as times are."""
    return _digits(count / 1e6)


def milliseconds(value: float) -> str:
    """Three decimals below a millisecond, where GPUs are, and two above."""
    return f"{value:.3f}" if value < 1 else f"{value:.2f}"


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"
