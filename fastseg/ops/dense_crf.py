import torch
from .._registry import declare
from ..reference import dense_crf as reference
declare(
    "dense_crf(Tensor unary, Tensor features, Tensor sigma, Tensor compatibility, int iterations, str normalization, bool include_self, str spatial, str bilateral, str output) -> Tensor",
    reference=reference.dense_crf,
    fake=lambda unary, *a: torch.empty_like(unary),
    dtypes=(torch.float32, torch.float64),
)
