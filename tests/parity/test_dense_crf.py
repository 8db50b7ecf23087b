"""The lattice and mean field against the library that everybody has used since 2013."""

import numpy
import pytest
import torch
from torch import Tensor

from fastseg import ops
from fastseg.reference.dense_crf import mean_field
from fastseg.reference.dense_crf_lattice import NORMALIZATIONS

pytestmark = pytest.mark.parity
densecrf = pytest.importorskip("pydensecrf.densecrf")

CODES = dict(zip(NORMALIZATIONS, range(4), strict=True))  # theirs are numbered in the same order


def their_field(unary: Tensor, features: list[Tensor], weights: list[float], mode: str, iterations: int) -> Tensor:
    """Q [C, P] after some iterations, of a CRF with a Potts term for each of the features."""
    crf = densecrf.DenseCRF(unary.shape[1], unary.shape[0])
    crf.setUnaryEnergy(unary.numpy())
    for f, weight in zip(features, weights, strict=True):
        crf.addPairwiseEnergy(f.numpy(), compat=weight, normalization=densecrf.NormalizationType(CODES[mode]))
    return torch.from_numpy(numpy.array(crf.inference(iterations))).view(unary.shape)


@pytest.mark.parametrize("mode", NORMALIZATIONS)
@pytest.mark.parametrize("d", range(1, 6))
def test_field(d: int, mode: str) -> None:
    g = torch.Generator().manual_seed(10 * d)
    unary = torch.rand(4, 700, generator=g) * 3
    features = [torch.randn(d, 700, generator=g), 2 * torch.randn(2, 700, generator=g)]
    # Sums that are not normalized are of the order of a hundred: with twice these weights, pydensecrf itself is 1.3e-5
    # off what float64 gives, and ours 7e-6.
    weights = [0.01, 0.005] if mode == "none" else [1.5, 0.5]

    def filtered(f: Tensor):  # type: ignore[no-untyped-def]
        return lambda q: ops.permutohedral_filter(q[None], f[None], normalization=mode)[0]

    potts = torch.stack([-w * torch.eye(4) for w in weights])
    for iterations in (1, 5):
        ours = mean_field(unary, [filtered(f) for f in features], potts, iterations)
        theirs = their_field(unary, features, weights, mode, iterations)
        # Logits are known up to a constant for each point, and from float32 as well as Q is.
        known = theirs > 1e-2
        torch.testing.assert_close(ours.log_softmax(0)[known], theirs.log()[known], atol=1e-5, rtol=0)
        torch.testing.assert_close(ours.softmax(0), theirs, atol=1e-5, rtol=0)
