"""Where a forward pass spends its time: by top-level stage, the last resize and the argmax being one of their own."""

import os
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.profiler import record_function
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from fastseg import ops

LABELS = "upsample + argmax"
OTHER = "other"


@dataclass(frozen=True)
class Resize:
    """A bilinear `interpolate`: its input and what `upsample_argmax` needs to do it fused with the argmax."""

    logits: Tensor
    size: tuple[int, int]
    align_corners: bool

    def plain(self) -> Tensor:
        """Labels as plain PyTorch makes them: full-size logits, then their argmax."""
        return F.interpolate(self.logits, self.size, mode="bilinear", align_corners=self.align_corners).argmax(1)

    def fused(self) -> Tensor:
        """The same labels without the full-size logits."""
        labels = ops.upsample_argmax(self.logits, self.size, align_corners=self.align_corners, dtype=self.dtype)
        assert isinstance(labels, Tensor)
        return labels

    @property
    def dtype(self) -> torch.dtype:
        """Narrowest label type that holds the classes."""
        return torch.uint8 if self.logits.shape[1] <= 256 else torch.int16


class Recorder(TorchFunctionMode):
    """Attribute a meter's rise to the stage that is running, innermost first; a context around one forward.

    A stage is a top-level child of the model, or what `names` says it belongs to. What runs between the children counts
    as `other`. The interpolation number `last_resize`, wherever it is called, is the stage `upsample + argmax`.

    Args:
        model: any module.
        names: stage by name of the top-level child. `"*"` is the stage of every child not in it and of what runs
            between the children; without it such a child keeps its own name.
        meter: monotonic; seconds, floating-point operations or bytes.
        last_resize: which call of `F.interpolate` gives the output, counted from 0; None for none of them.
    """

    def __init__(
        self,
        model: nn.Module,
        names: Mapping[str, str],
        meter: Callable[[], float] = time.perf_counter,
        last_resize: int | None = None,
    ) -> None:
        super().__init__()
        self.stages = {module: stage_name(name, names) for name, module in children(model)}
        self.rest = names.get("*", OTHER)
        self.meter = meter
        self.last_resize = last_resize
        self.totals: defaultdict[str, float] = defaultdict(float)
        self.resizes: list[tuple[Resize | None, Tensor]] = []
        self.count = 0

    def __enter__(self) -> "Recorder":
        self.hooks = [m.register_forward_pre_hook(lambda m, _: self.begin(self.stages[m])) for m in self.stages]
        self.hooks += [m.register_forward_hook(lambda *_: self.end(), always_call=True) for m in self.stages]
        self.running = [self.rest]
        super().__enter__()
        self.since = self.meter()
        return self

    def __exit__(self, *error: Any) -> None:
        self._charge()
        super().__exit__(*error)
        for hook in self.hooks:
            hook.remove()

    def begin(self, stage: str) -> None:
        """Charge what follows to `stage`, until `end()`."""
        self._charge()
        self.running.append(stage)

    def end(self) -> None:
        """Go back to the stage around this one."""
        self._charge()
        self.running.pop()

    def _charge(self) -> None:
        now = self.meter()
        self.totals[self.running[-1]] += now - self.since
        self.since = now

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is not F.interpolate:
            return function(*args, **kwargs)
        split = self.count == self.last_resize
        self.count += 1
        if split:
            self.begin(LABELS)
        out = function(*args, **kwargs)
        if split:
            self.end()
        if self.last_resize is None:
            self.resizes.append((_bilinear(out, *args, **kwargs), out))
        return out


class Ranges(Recorder):
    """Also shows every stage as a named range to a running profiler."""

    def __enter__(self) -> "Ranges":
        self.open: list[record_function] = []
        super().__enter__()
        return self

    def begin(self, stage: str) -> None:
        """Open the range of a stage."""
        super().begin(stage)
        self.open.append(record_function(stage))
        self.open[-1].__enter__()

    def end(self) -> None:
        """Close the innermost range."""
        self.open.pop().__exit__(None, None, None)
        super().end()


def stage_name(child: str, names: Mapping[str, str]) -> str:
    """The stage that a top-level child belongs to."""
    return names.get(child, names.get("*", child))


def children(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The top-level stages of a model: its children; lists are entered, and so is a lone wrapper."""
    found = list(model.named_children())
    if len(found) == 1 and any(True for _ in found[0][1].children()):
        return children(found[0][1])
    entered = []
    for name, child in found:
        listed = isinstance(child, nn.ModuleList | nn.ModuleDict)
        entered += [(name, item) for item in child.children()] if listed else [(name, child)]
    return entered


def output_logits(output: Any) -> Tensor | None:
    """The logits ``[N, C, H, W]`` in whatever a segmentation model returns; None where there are none."""
    if isinstance(output, Mapping):
        output = output.get("out", output.get("logits", next(iter(output.values()), None)))
    elif hasattr(output, "logits"):
        output = output.logits
    elif isinstance(output, list | tuple):
        output = output[0] if output else None
    fits = isinstance(output, Tensor) and output.is_floating_point() and output.dim() == 4 and output.shape[1] > 1
    return output if fits else None


class Pass:
    """A model's way from one prepared image to labels, cut into stages.

    The model runs once to find its last resize: the interpolation inside it that makes its output or, where its logits
    are smaller than the image, the one that its caller has to do.

    Args:
        model: in evaluation mode.
        x: normalised images ``[N, 3, H, W]``.
        names: as in :class:`Recorder`.
        fused: make the labels by `upsample_argmax` where the caller has to resize; otherwise by plain PyTorch.
    """

    def __init__(self, model: nn.Module, x: Tensor, names: Mapping[str, str], fused: bool = False) -> None:
        self.model, self.x, self.names, self.fused = model, x, names, fused
        self.inside: int | None = None
        self.resize: Resize | None = None
        with Recorder(model, names) as recorder:
            logits = output_logits(model(x))
        size = (int(x.shape[-2]), int(x.shape[-1]))
        for index, (resize, out) in enumerate(recorder.resizes):
            if logits is not None and out.data_ptr() == logits.data_ptr() and out.shape == logits.shape:
                self.inside, self.resize = (index, resize) if resize else (None, None)
        if self.inside is None and logits is not None and logits.shape[-2:] != size:
            self.resize = Resize(logits, size, bool(getattr(model, "align_corners", False)))

    def run(self) -> Any:
        """Go the whole way once; labels, or the model's own output where that is no label map."""
        output = self.model(self.x)
        logits = output_logits(output)
        return output if logits is None else self._labels(logits)

    def record(self, meter: Callable[[], float] = time.perf_counter, ranges: bool = False) -> dict[str, float]:
        """Go the whole way once and give the meter's rise by stage; with `ranges`, tell a profiler the stages too."""
        with (Ranges if ranges else Recorder)(self.model, self.names, meter, self.inside) as recorder:
            logits = output_logits(self.model(self.x))
            if logits is not None:
                recorder.begin(LABELS if self.resize else "argmax")
                self._labels(logits)
                recorder.end()
        return dict(recorder.totals)

    def _labels(self, logits: Tensor) -> Tensor:
        if self.resize is None or self.inside is not None:
            return logits.argmax(1)
        last = replace(self.resize, logits=logits)
        return last.fused() if self.fused else last.plain()

    def flops(self) -> dict[str, float]:
        """Floating-point operations by stage as `torch.utils.flop_counter` counts them: those of contractions."""
        with FlopCounterMode(display=False) as counter:
            return self.record(counter.get_total_flops)

    def activation_bytes(self) -> dict[str, float]:
        """Bytes of the tensors that each stage's operators create."""
        with _Bytes() as counter:
            return self.record(lambda: counter.total)

    def parameters(self) -> dict[str, int]:
        """Number of parameters by stage."""
        totals: defaultdict[str, int] = defaultdict(int)
        for name, module in children(self.model):
            totals[stage_name(name, self.names)] += sum(p.numel() for p in module.parameters())
        return dict(totals)


def _bilinear(
    out: Tensor,
    x: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Resize | None:
    if mode != "bilinear" or antialias or out.dim() != 4:
        return None
    return Resize(x, (int(out.shape[2]), int(out.shape[3])), bool(align_corners))


class _Bytes(TorchDispatchMode):
    """Count the bytes of every tensor that operators create."""

    total = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        before, after = ({s.data_ptr(): s for s in _storages(tree)} for tree in (args, out))
        self.total += sum(storage.nbytes() for address, storage in after.items() if address not in before)
        return out


def _storages(tree: Any) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def quiet_profiler() -> torch.profiler.profile:
    """PyTorch's profiler with memory events, without Kineto's greeting on stderr."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    return torch.profiler.profile(profile_memory=True)


def allocator_peak(function: Callable[[], Any]) -> int:
    """High-water mark of torch's allocator over a call, beyond what was allocated before it.

    It counts every allocation of torch's CPU or CUDA allocator, temporaries inside operators too; it does not see what
    oneDNN or a BLAS library takes from the system by itself.
    """
    with quiet_profiler() as profiler:
        function()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak
