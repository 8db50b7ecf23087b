"""The table of cases and the comparisons behind every test and benchmark, for tests of ops built on these too."""

from .asserts import (
    assert_close,
    assert_counts,
    assert_gradient,
    assert_memory_format,
    assert_pixels,
)
from .bands import Band
from .case import FLOATS, INTEGERS, Case, find_cases
from .check import SEED, Run, assert_paths, assert_same, inputs_of, judge, run
from .isa import best_isa, expected_path, isas, use_isa
from .layouts import LAYOUTS, with_layout
from .record import recorded_calls
from .selftest import Outcome, layouts_of, selftest

__all__ = [
    "FLOATS",
    "INTEGERS",
    "LAYOUTS",
    "SEED",
    "Band",
    "Case",
    "Outcome",
    "Run",
    "assert_close",
    "assert_counts",
    "assert_gradient",
    "assert_memory_format",
    "assert_paths",
    "assert_pixels",
    "assert_same",
    "best_isa",
    "expected_path",
    "find_cases",
    "inputs_of",
    "isas",
    "judge",
    "layouts_of",
    "recorded_calls",
    "run",
    "selftest",
    "use_isa",
    "with_layout",
]
