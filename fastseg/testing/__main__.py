"""`python -m fastseg.testing`: prove this installation on the smoke rows, on every instruction set."""

import sys

import torch

from . import find_cases, isas, judge, run, use_isa


def main() -> int:
    """Print what ran and what failed; 1 if anything did."""
    torch.set_num_threads(1)
    failures = 0
    rows = find_cases(None, "smoke")
    for isa in isas():
        with use_isa(isa):
            for case in rows:
                for dtype in case.dtypes:
                    try:
                        judge(case, dtype, run(case, dtype))
                    except AssertionError as error:
                        failures += 1
                        print(f"{isa}: {error}")
    print(f"{len(rows)} rows on {', '.join(isas())}: {failures} failures")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
