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
# The rung that has to catch it, the operator, and what it is done to: every such mutant.
BROKEN = {
    "missing barrier": ("thread", "barrier dropped", "__syncthreads();"),
    "missing barrier, by its values": ("values", "barrier dropped", "__syncthreads();"),
    "bound off by one": ("address", "comparison shifted", "r < s.rows"),
    "uninitialised shared memory": ("values", "zeros dropped", "sums[i] = 0;"),
    "bfloat16 cut and not rounded": ("values", "rounding to zero", "__float2bfloat16_rn"),
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
    asked = {
        number: name
        for name, (by, operator, words) in BROKEN.items()
        for number, mutant in enumerate(mutants, 1)
        if by == rung and (mutant.operator, mutant.words) == (operator, words)
    }
    (harmless,) = [k for k, mutant in enumerate(mutants, 1) if (mutant.operator, mutant.words) == HARMLESS]
    asked[harmless] = "harmless"
    order = Order(str(library), tuple(asked), rung, dict.fromkeys(asked, JOBS), seconds=600)
    verdicts = {verdict.mutant: verdict for verdict in run(order)}
    assert 0 not in verdicts, verdicts[0]
    caught = {asked[number] for number, verdict in verdicts.items() if verdict.how == rung}
    assert caught == {*asked.values()} - {"harmless"}, verdicts
    assert not verdicts[harmless].how, verdicts[harmless]
