"""What peers need before they can be imported."""

import torch

# A torchvision built for another torch build finds no native nms at import; a schema is all it asks for.
_schemas = torch.library.Library("torchvision", "FRAGMENT")
for _name in ("nms", "qnms"):
    if not hasattr(torch.ops.torchvision, _name):
        _schemas.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
