"""The base of streaming metrics: `torchmetrics.Metric` where that is installed, the same states otherwise."""

import contextlib
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from fastseg.metrics.confusion import POISON, poisoned

Device = torch.device | str | None


class PlainMetric:
    """What streaming metrics use of `torchmetrics.Metric`."""

    def __init__(self, *, sync_on_compute: bool, **_: Any) -> None:
        self.sync_on_compute = self._to_sync = sync_on_compute
        self._defaults: dict[str, Tensor] = {}

    def add_state(self, name: str, default: Tensor, dist_reduce_fx: str) -> None:
        self._defaults[name] = default.clone()
        setattr(self, name, default)

    def reset(self) -> None:
        for name, default in self._defaults.items():
            setattr(self, name, default.to(getattr(self, name).device, copy=True))

    def to(self, device: torch.device | str) -> Any:
        """Move what was counted to a device."""
        for name in self._defaults:
            setattr(self, name, getattr(self, name).to(device))
        return self


# Seconds to import, so that `import fastseg` does not come here; an installation that is broken says so itself.
if find_spec("torchmetrics") is not None:
    from torchmetrics import Metric as Base
else:
    Base: Any = PlainMetric  # type: ignore[no-redef]


def _never() -> bool:
    return False


class Metric(Base):
    """A metric that is filled batch by batch: `update`, `compute`, `reset`, `all_reduce`.

    States are tensors, either sums or rows that are gathered; a class adds its own in ``__init__``, fills them in
    `update`, and makes them into numbers in `value`. It is a `torchmetrics.Metric` where torchmetrics is installed: it
    goes into a ``MetricCollection``, and ``forward`` returns the value of a batch. The numbers are the same without.

    Args:
        sync_on_compute: `compute` reduces over the processes of the default group, each of which has to call it, and
            goes on with what the process itself counted. False leaves that to `all_reduce`.
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False

    def __init__(self, *, sync_on_compute: bool = False) -> None:
        # Processes are reduced here in either case: torchmetrics would add up poison, and stack rows of unequal number.
        super().__init__(sync_on_compute=sync_on_compute, distributed_available_fn=_never, compute_with_cache=False)
        self._sums: list[str] = []
        self._rows: dict[str, tuple[Tensor, int]] = {}

    def add_sums(self, name: str, default: Tensor) -> None:
        """Add a state that adds up over processes."""
        self._sums.append(name)
        self.add_state(name, default, dist_reduce_fx="sum")

    def add_rows(self, name: str, columns: int, device: Device) -> None:
        """Add a state of rows of float64, none of which begins with nan, that come together from all processes."""
        self._rows[name] = torch.empty(0), 0
        self.add_state(name, torch.empty(0, columns, dtype=torch.float64, device=device), dist_reduce_fx="cat")

    def value(self) -> Any:
        """The metric of what the states hold."""
        raise NotImplementedError

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self._rows = {name: (torch.empty(0), 0) for name in self._rows}

    def compute(self) -> Any:
        """Compute the metric of everything counted so far."""
        with self._reduced() if self._to_sync else contextlib.nullcontext():
            return self.value()

    def all_reduce(self) -> None:
        """Replace what was counted by that of all processes of the default group; nothing happens without one.

        Where one of them met a bad label on a GPU, none has scores afterwards.
        """
        if self.sync_on_compute:
            raise ValueError("fastseg::all_reduce: sync_on_compute must be False, for compute would reduce once more")
        self._all_reduce()

    def append(self, name: str, rows: Tensor) -> None:
        """Add rows to a state of rows, whose room doubles: what is free is nan."""
        kept = getattr(self, name)
        owner, used = self._rows[name]
        used = used if owner is kept else len(kept)
        if used + len(rows) > len(kept):
            grown = kept.new_full((max(2 * len(kept), used + len(rows)), *kept.shape[1:]), torch.nan)
            grown[:used] = kept[:used]
            setattr(self, name, grown)
            kept = grown
        kept[used : used + len(rows)] = rows
        self._rows[name] = kept, used + len(rows)

    def rows(self, name: str) -> Tensor:
        """The rows of a state, without free room."""
        kept = getattr(self, name)
        return kept[~kept[:, 0].isnan()]

    @contextlib.contextmanager
    def _reduced(self) -> Iterator[None]:
        own = {name: getattr(self, name) for name in (*self._sums, *self._rows)}
        try:
            for name, state in own.items():
                setattr(self, name, state.clone())
            self._all_reduce()
            yield
        finally:
            for name, state in own.items():
                setattr(self, name, state)

    def _all_reduce(self) -> None:
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return
        for name in self._sums:
            _add_up(getattr(self, name))
        for name in self._rows:
            setattr(self, name, _gathered(self.rows(name)))


def _add_up(counts: Tensor) -> None:
    if counts.dtype != torch.int64:
        torch.distributed.all_reduce(counts)
        return
    bad = poisoned(counts).to(torch.int64)
    torch.distributed.all_reduce(bad, torch.distributed.ReduceOp.MAX)
    torch.distributed.all_reduce(counts)
    counts.masked_fill_(bad.bool(), POISON)


def _gathered(rows: Tensor) -> Tensor:
    """The rows of all processes, rank after rank."""
    lengths = [rows.new_zeros(1, dtype=torch.int64) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(lengths, rows.new_tensor([len(rows)], dtype=torch.int64))
    counts = [int(n) for n in lengths]
    padded = rows.new_zeros(max(counts), *rows.shape[1:])
    padded[: len(rows)] = rows
    everyone = [torch.empty_like(padded) for _ in counts]
    torch.distributed.all_gather(everyone, padded)
    return torch.cat([part[:n] for part, n in zip(everyone, counts, strict=True)])
