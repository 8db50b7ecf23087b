"""Broken copies of a kernel are caught by the host build, and the copy beside them that is not broken is clean."""

import shutil
from pathlib import Path

import pytest

from fastseg.testing.ladder import host, mutation
from fastseg.testing.ladder.mutant_runs import Job, Order, run
from fastseg.testing.ladder.sources import ROOT

pytestmark = pytest.mark.skipif(bool(host.why_not()), reason=host.why_not())
GLUE = ("common/cuda.cu", "upsample/adjoint_cuda.cu")
FILES = ("csrc/common/kernel.cuh", "csrc/upsample/adjoint_kernel.cuh")
# The rung that has to catch it, the operator, what it is done to, and whether every such mutant is caught.
BROKEN = {
    "missing barrier": ("thread", "barrier dropped", "__syncthreads();"),
    "missing barrier, by its values": ("values", "barrier dropped", "__syncthreads();"),
    "bound off by one": ("address", "comparison shifted", "r < s.rows"),
    "uninitialised shared memory": ("values", "zeros dropped", "sums[i] = 0;"),
    "bfloat16 cut and not rounded": ("values", "rounding to zero", "__float2bfloat16_rn"),
}
JOBS: list[Job] = [("upsample_bilinear-x2", dtype, "contiguous") for dtype in ("float32", "bfloat16")]


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[mutation.Mutant]]:
    """The kernels of the backwards alone, with their mutants."""
    folder = tmp_path_factory.mktemp("broken")
    mutants = mutation.write_mutants([ROOT / file for file in FILES], folder)
    for path in folder.glob("csrc/*/*cuda.cu"):
        if path.relative_to(folder / "csrc").as_posix() not in GLUE:
            path.unlink()
    return folder, mutants


@pytest.mark.parametrize("rung", ["values", "address", "thread"])
def test_broken_copies_are_caught(rung: str, tree: tuple[Path, list[mutation.Mutant]]) -> None:
    folder, mutants = tree
    library = host.build(rung if rung in host.SANITIZERS else "", folder / "csrc", folder / rung)
    asked = {
        number: name
        for name, (by, operator, words) in BROKEN.items()
        for number, mutant in enumerate(mutants, 1)
        if by == rung and (mutant.operator, mutant.words) == (operator, words)
    }
    assert asked and shutil.which("setarch")
    order = Order(str(library), (0, *asked), rung, {number: JOBS for number in (0, *asked)})
    verdicts = {verdict.mutant: verdict for verdict in run(order)}
    assert not verdicts.pop(0).how
    caught = {asked[number] for number, verdict in verdicts.items() if verdict.how == rung}
    assert caught == set(asked.values()), verdicts
