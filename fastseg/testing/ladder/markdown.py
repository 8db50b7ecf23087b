"""The tables of docs/gpu.md, made of the stored rows and of nothing else."""

from collections.abc import Sequence

import torch

from .devices import ARCHS, DEVICES
from .gate import Row, wide_share
from .mutation import tally
from .prediction import table
from .static import COMMAND

DTYPES = (torch.float32, torch.float16)


def compiled(rows: Sequence[Row]) -> str:
    """One line per kernel, one column per architecture."""
    if not rows:
        return f"No rows are recorded yet: `{COMMAND}`.\n"
    found = {(row["kernel"], row["arch"]): row for row in rows}
    lines = []
    for kernel in sorted({row["kernel"] for row in rows}):
        own = [found[kernel, arch] for arch in ARCHS if (kernel, arch) in found]
        wide = [min(round(100 * wide_share(row[what], 128)) for row in own) for what in ("loads", "stores")]
        first = own[0]
        facts = (first["threads"], max(row["shared"] + row["dynamic"] for row in own), f"{wide[0]} %", f"{wide[1]} %")
        cells = (_cell(found.get((kernel, arch))) for arch in ARCHS)
        lines.append(f"| `{kernel}` | {' | '.join(map(str, (*facts, *cells)))} |")
    compilers = " and ".join(sorted({row["compiler"] for row in rows}))
    spilling = sum(bool(row["spills"] or row["local"]) for row in rows)
    local = f"{spilling} of the {len(rows)} builds use" if spilling else f"None of the {len(rows)} builds uses"
    head = (
        f"Compiled by {compilers}. Under each architecture: registers per thread, occupancy, instructions. `shared` is "
        "bytes per block; `loads` and `stores` the share of the instructions on global memory that move 128 bits or "
        f"more per thread. {local} local memory.\n\n"
        f"| kernel | threads | shared | loads | stores | {' | '.join(f'sm_{arch}' for arch in ARCHS)} |\n"
    )
    return head + "|---" * (5 + len(ARCHS)) + "|\n" + "\n".join(lines) + "\n"


def _cell(row: Row | None) -> str:
    return f"{row['registers']}, {100 * row['occupancy']:.0f} %, {row['instructions']}" if row else ""


def predicted(rows: Sequence[Row]) -> str:
    """Predicted times of the timed rows on every device of the table, and where the devices' figures stand."""
    names = tuple(device.name for device in DEVICES)
    parts = []
    for dtype in DTYPES:
        lines = []
        for case, mode, predictions in table(dtype, names, tuple(rows)):
            times = (f"{p.ms:.3f} {p.bound[0]}" for p in predictions)
            lines.append(f"| `{case.op}` {mode} | {case.id} | {' | '.join(times)} |")
        head = (
            f"Predicted ms, {str(dtype).removeprefix('torch.')} (m: bound by memory, c: by computing):\n\n"
            f"| op | case | {' | '.join(names)} |\n"
        )
        parts.append(head + "|---" * (2 + len(names)) + "|\n" + "\n".join(lines) + "\n")
    head = (
        "The devices:\n\n| device | sm | multiprocessors | GHz | GB/s | TFLOP/s | L2 MiB | source |\n"
        "|---|---|---|---|---|---|---|---|\n"
    )
    lines = [
        f"| {d.name} | {d.arch} | {d.multiprocessors} | {d.clock:g} | {d.bandwidth:g} | {d.tflops:g} "
        f"| {d.l2 / 2**20:g} | {d.source} |"
        for d in DEVICES
    ]
    return "\n".join([*parts, head + "\n".join(lines) + "\n"])


def _share(rows: Sequence[Row]) -> str:
    killed, mutants = tally(rows)
    return f"{100 * killed / mutants:.1f} %" if mutants else ""


def mutated(rows: Sequence[Row]) -> str:
    """One line per kernel file, and the mutants that live on, each with its reason."""
    if not rows:
        return "No rows are recorded yet: `python -m fastseg.testing.ladder.mutation`.\n"
    hows = sorted({how for row in rows for how in row["killed"]})
    lines, living = [], []
    for row in rows:
        counts = (str(row["killed"].get(how, 0)) for how in hows)
        lines.append(f"| `{row['file']}` | {row['mutants']} | {' | '.join(counts)} | {_share([row])} |")
        for one in row["survivors"]:
            living.append(f"- `{row['file']}`: {one['key']}. {one['reason'] or '**No reason yet.**'}")
    totals = (str(sum(row["killed"].get(how, 0) for row in rows)) for how in hows)
    lines.append(f"| all | {sum(row['mutants'] for row in rows)} | {' | '.join(totals)} | {_share(rows)} |")
    head = f"| file | mutants | {' | '.join(hows)} | killed |\n" + "|---" * (3 + len(hows)) + "|\n"
    return head + "\n".join(lines) + "\n\nThose that live on:\n\n" + ("\n".join(living) or "None.") + "\n"
