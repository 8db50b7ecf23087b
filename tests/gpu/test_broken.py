"""Broken copies of a kernel are caught by the host build, and the copy beside them that is not broken is clean."""

from pathlib import Path

import pytest

from fastseg.testing.ladder import host, mutation
from fastseg.testing.ladder.mutant_runs import Job, Order, run
from fastseg.testing.ladder.sources import ROOT

pytestmark = pytest.mark.skipif(bool(host.why_not()), reason=host.why_not())
BACKWARDS = ("common/cuda.cu", "upsample/adjoint_cuda.cu")
# The rounding of a gradient is within the tolerance of its sums; that of a result is not.
GLUE = {"values": (*BACKWARDS, "upsample/softmax_cuda.cu"), "address": BACKWARDS, "thread": BACKWARDS}
FILES = ("csrc/common/kernel.cuh", "csrc/upsample/adjoint_kernel.cuh")
# The rung that has to catch it, the operator, what it is done to, and which of these in the order of the files.
BROKEN = {
    "missing barrier": ("thread", "barrier dropped", "__syncthreads();", -1),
    "missing barrier, by its values": ("values", "barrier dropped", "__syncthreads();", -1),
    "bound off by one": ("address", "comparison shifted", "r < s.rows", 0),
    "uninitialised shared memory": ("values", "zeros dropped", "sums[i] = 0;", 0),
    "bfloat16 cut and not rounded": ("values", "rounding to zero", "__float2bfloat16_rn", 0),
}
# A walk in the other direction gives the same: what calls this a fault finds faults everywhere.
HARMLESS = ("comparison shifted", "k % 2 == 0")
JOBS: list[Job] = [("upsample_bilinear-x2", "float32", "contiguous"), ("upsample_softmax-x2", "bfloat16", "contiguous")]


@pytest.mark.parametrize("rung", GLUE)
def test_broken_copies_are_caught(rung: str, tmp_path: Path) -> None:
    mutants = mutation.write_mutants([ROOT / file for file in FILES], tmp_path)
    for path in tmp_path.glob("csrc/*/*cuda.cu"):
        if path.relative_to(tmp_path / "csrc").as_posix() not in GLUE[rung]:
            path.unlink()
    library = host.build(rung if rung in host.SANITIZERS else "", tmp_path / "csrc", tmp_path / rung)

    def numbers(operator: str, words: str) -> list[int]:
        return [k for k, mutant in enumerate(mutants, 1) if (mutant.operator, mutant.words) == (operator, words)]

    broken = {name: numbers(*what)[which] for name, (by, *what, which) in BROKEN.items() if by == rung}
    (harmless,) = numbers(*HARMLESS)
    asked = (*broken.values(), harmless)
    order = Order(str(library), asked, rung, dict.fromkeys(asked, JOBS), seconds=600)
    verdicts = {verdict.mutant: verdict for verdict in run(order)}
    assert 0 not in verdicts, verdicts[0]
    missed = {name: verdicts[number] for name, number in broken.items() if verdicts[number].how != rung}
    assert broken and not missed, missed
    assert not verdicts[harmless].how, verdicts[harmless]
