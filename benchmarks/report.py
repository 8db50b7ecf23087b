"""Draw the tables of the README and of docs/gpu.md, and the figures, from the recorded rows, and from nothing else.

`python benchmarks/report.py` writes them; `--check` fails where a page is not what the rows say, or where a goal's row
is missing.
"""

import argparse
import json
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from fastseg.testing.bench import best_rival
from fastseg.testing.contenders import OURS
from fastseg.testing.goals import COSTS, GOALS, MEANS, Goal, find_goal, reason_for
from fastseg.testing.ladder import markdown, mutation, static

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
FIGURES = ROOT / "docs" / "figures"

Row = dict[str, Any]


def load(results: Path = RESULTS) -> list[Row]:
    """The rows that were timed on a CPU; those of a GPU name their device."""
    rows = (json.loads(line) for path in sorted(results.glob("*.jsonl")) for line in path.read_text().splitlines())
    return [row for row in rows if "ms" in row and "device" not in row]


def contests(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows that were measured against each other, ours first; ours is there, and a rival. Where a contest was held with
    several instruction sets, the last one counts."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((*_contest(row), row["isa"]), []).append(row)
    latest: dict[tuple[Any, ...], list[Row]] = {}
    for group in (sorted(held, key=lambda row: row["backend"] != OURS) for held in groups.values()):
        before = latest.get(_contest(group[0]))
        if group[0]["backend"] == OURS and group[1:] and (before is None or before[0]["when"] < group[0]["when"]):
            latest[_contest(group[0])] = group
    return list(latest.values())


def _contest(row: Row) -> tuple[Any, ...]:
    return tuple(row[k] for k in ("cpu", "op", "mode", "case", "layout", "dtype", "threads"))


def goal_of(row: Row) -> Goal | None:
    """What is promised of a row: of those on two threads."""
    return find_goal(row["op"], row["case"], row["mode"]) if row["threads"] == 2 else None


def speedup(group: Sequence[Row]) -> float:
    """How many times faster ours is than the best rival."""
    return float(best_rival(group)["ms"] / group[0]["ms"])


def peaks(group: Sequence[Row]) -> tuple[float, float] | None:
    """Peak memory of eager, or of the library in its place, and of ours in MiB, where both were measured."""
    found = {row["backend"]: row["peak_mib"] for row in group if row["peak_mib"] is not None}
    theirs = [mib for name, mib in found.items() if name != OURS]
    return (found.get("eager", theirs[0]), found[OURS]) if theirs and OURS in found else None


def missing(rows: Sequence[Row]) -> list[str]:
    """Rows that a goal speaks of and that were not measured."""
    groups = {tuple(str(g[0][k]) for k in ("op", "mode", "case", "layout", "threads")): g for g in contests(rows)}
    lacking = []
    for goal in GOALS:
        for case, layout, threads in product(goal.cases(), goal.layouts, goal.threads):
            key = goal.op, goal.mode, case.id, layout, str(threads)
            if key not in groups:
                lacking.append(" ".join(key))
            elif goal.memory is not None and peaks(groups[key]) is None:
                lacking.append(f"{' '.join(key)} (peak memory)")
    return lacking


def verdict(goal: Goal | None, reached: float) -> str:
    """Goal and whether it is met; a loss is called one."""
    if reached < 1:
        return f"{goal.speedup:g}x: **loss**" if goal else "**loss**"
    return "" if goal is None else f"{goal.speedup:g}x: {'met' if reached >= goal.speedup else '**missed**'}"


def name_of(row: Row) -> str:
    """Case and, where they are not the usual ones, layout and threads."""
    layout = "" if row["layout"] == "contiguous" else f" {row['layout']}"
    return f"{row['case']}{layout}" + (", one thread" if row["threads"] == 1 else "")


def table(rows: Sequence[Row]) -> str:
    """The Markdown of the times."""
    held = contests(rows)
    if not held:
        return "No rows are recorded yet: `make bench`.\n"
    lines = []
    usual = Counter(group[0]["isa"] for group in held).most_common(1)[0][0]
    for group in held:
        ours, rival = group[0], best_rival(group)
        name = name_of(ours) + ("" if ours["isa"] == usual else f", {ours['isa']}")
        share = "" if ours["share_of_ceiling"] is None else f"{100 * ours['share_of_ceiling']:.0f} %"
        lines.append(
            f"| `{ours['op']}` {ours['mode']} | {name} | {rival['ms']:.2f} ({rival['backend']}) "
            f"| {ours['ms']:.2f} [{ours['ms20']:.2f}-{ours['ms80']:.2f}] | {speedup(group):.1f}x "
            f"| {verdict(goal_of(ours), speedup(group))} | {share} |"
        )
    first = rows[0]
    dirty = ", some from a dirty tree" if any(row["dirty"] for row in rows) else ""
    where = "; ".join(sorted({group[0]["cpu"] for group in held}))
    head = (
        f"Float32, two threads and {usual} or as is said, {where}, torch {first['torch']}{dirty}. Times in "
        "ms: medians, and p20-p80 in brackets; the rival is the fastest of eager, eager channels_last, torch.compile "
        "and, for the confusion matrix, torchmetrics, measured in turns with ours; of distances it is edt (two "
        "threads) or SciPy; of the CRF it is pydensecrf2, which has one thread, so that its times beside one and two "
        "of ours differ by the machine's noise only; of a model, "
        "as `fastseg profile` times it, the same weights in plain layers. `ceiling` is the time that the bytes or the "
        "FLOPs need at least on this machine over the time taken; a shortcut that leaves FLOPs out can pass 100 %.\n\n"
        "| op | case | best rival | fastseg | speed-up | goal | ceiling |\n|---|---|---|---|---|---|---|\n"
    )
    return head + "\n".join(lines) + "\n"


def memory(rows: Sequence[Row]) -> str:
    """The Markdown of the peak memory, of the rows that promise some, and of those that train."""
    lines = []
    for group in contests(rows):
        row, goal, peak = group[0], goal_of(group[0]), peaks(group)
        promised = goal.memory if goal else None
        if peak and (promised is not None or row["mode"] == "both"):
            eager, ours = peak
            share = f"{100 * ours / eager:.1f} %"
            if promised is not None:
                met = "met" if ours <= promised * eager else "**missed**"
                share += f" | {100 * promised:g} %: {met}"
            else:
                share += " |"
            lines.append(f"| `{row['op']}` {row['mode']} | {name_of(row)} | {eager:.1f} | {ours:.1f} | {share} |")
    if not lines:
        return ""
    head = (
        "Peak memory in MiB that a call adds, by the high-water mark of its process; of a model, of torch's allocator. "
        "The other side is eager, and pydensecrf2 for the CRF:\n\n"
        "| op | case | the other | fastseg | share | goal |\n|---|---|---|---|---|---|\n"
    )
    return head + "\n".join(lines) + "\n"


def across(rows: Sequence[Row]) -> str:
    """The Markdown of the promises that several rows have to keep together."""
    groups = {(g[0]["op"], g[0]["mode"], g[0]["case"]): g for g in contests(rows) if g[0]["layout"] == "contiguous"}
    lines = []
    for mean in MEANS:
        held = [g for (op, mode, case), g in groups.items() if (op, mode) == (mean.op, mean.mode)
                and case.endswith(mean.kinds)]  # fmt: skip
        if held:
            reached = statistics.geometric_mean(map(speedup, held))
            met = "met" if reached >= mean.speedup else "**missed**"
            lines.append(f"- `{mean.op}` {mean.mode}, geometric mean of {len(held)} rows: {reached:.2f}x, "
                         f"goal {mean.speedup:g}x: {met}")  # fmt: skip
    for cost in COSTS:
        ours, other = (groups.get((cost.op, cost.mode, case)) for case in (cost.case, cost.of))
        if ours and other:
            taken = ours[0]["ms"] / best_rival(other)["ms"]
            met = "met" if taken <= cost.times else "**missed**"
            lines.append(f"- `{cost.op}` {cost.mode}, {cost.case} over the best rival's {cost.of}: {taken:.2f} times "
                         f"the time, goal {cost.times:g}: {met}")  # fmt: skip
    return "Promises of several rows together:\n\n" + "\n".join(lines) + "\n" if lines else ""


def missed(rows: Sequence[Row]) -> str:
    """The Markdown of the goals that are missed: by how much, what the rows need at least, and why."""
    points: dict[tuple[str, str], list[str]] = {}
    for group in contests(rows):
        ours, goal = group[0], goal_of(group[0])
        if goal and speedup(group) < goal.speedup:
            share = ours["share_of_ceiling"]
            needs = f"{ours['bytes'] / 1e6:.1f} MB, {ours['flops'] / 1e6:.0f} MFLOP"
            needs += "" if share is None else f", {100 * share:.0f} %"
            head = f"`{goal.op}` {goal.mode}, goal {goal.speedup:g}x"
            line = f"{name_of(ours)} {speedup(group):.1f}x ({needs})"
            points.setdefault((head, reason_for(goal.op, ours["case"])), []).append(line)
    if not points:
        return "Every speed goal is met.\n"
    lines = [f"- {head}: {'; '.join(cases)}. {reason}" for (head, reason), cases in points.items()]
    head = "Goals missed, with what the operation needs at least and the share of the ceiling reached:\n\n"
    return head + "\n".join(lines) + "\n"


def with_block(page: str, name: str, text: str) -> str:
    """The page with `text` between the markers of a name."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if begin not in page or end not in page:
        raise SystemExit(f"the page must have the markers {begin} and {end}")
    head, rest = page.split(begin, 1)
    return f"{head}{begin}\n{text}{end}{rest.split(end, 1)[1]}"


def report(readme: str, rows: Sequence[Row]) -> str:
    """The README with what the rows say."""
    below = "\n".join(filter(None, [memory(rows), across(rows), missed(rows)])) if rows else ""
    return with_block(with_block(readme, "bench", table(rows)), "goals", below)


def gpu(page: str, rows: Sequence[Row], mutants: Sequence[Row]) -> str:
    """docs/gpu.md with what the rows of the compilers and of the mutants say."""
    page = with_block(page, "static", markdown.compiled(rows))
    page = with_block(page, "predicted", markdown.predicted(rows))
    return with_block(page, "mutated", markdown.mutated(mutants))


def draw(rows: Sequence[Row], folder: Path = FIGURES) -> None:
    """One figure for each op: speed-up over the best rival by case, losses in red."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    for op in sorted({row["op"] for row in rows}):
        groups = contests([row for row in rows if row["op"] == op])
        names = [f"{g[0]['case']} {g[0]['mode']} {g[0]['layout']}" for g in groups]
        middle = [speedup(g) for g in groups]
        worst = [m - best_rival(g)["ms20"] / g[0]["ms80"] for m, g in zip(middle, groups, strict=True)]
        best = [best_rival(g)["ms80"] / g[0]["ms20"] - m for m, g in zip(middle, groups, strict=True)]
        figure, axes = plt.subplots(figsize=(8, 0.9 + 0.3 * len(groups)))
        colours = ["tab:red" if value < 1 else "tab:blue" for value in middle]
        axes.barh(names, middle, color=colours, xerr=[worst, best], error_kw={"ecolor": "0.4", "capsize": 2})
        axes.axvline(1, color="black", linewidth=1)
        for place, group in enumerate(groups):
            goal = goal_of(group[0])
            if goal:
                axes.plot([goal.speedup, goal.speedup], [place - 0.4, place + 0.4], color="tab:green", linewidth=2)
        axes.invert_yaxis()
        axes.set_xlabel("times as fast as the best rival (bar ends: p20 to p80; green: the goal)")
        axes.set_title(op)
        figure.savefig(folder / f"bench_{op}.png", dpi=110, bbox_inches="tight")
        plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the table and the figures, or compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail where the README differs or rows are missing")
    check = parser.parse_args(arguments).check
    readme, gpu_page = ROOT / "README.md", ROOT / "docs" / "gpu.md"
    rows = load()
    wanted = {
        readme: report(readme.read_text(), rows),
        gpu_page: gpu(gpu_page.read_text(), static.load(), list(mutation.load().values())),
    }
    lacking = missing(rows)
    for name in lacking:
        print(f"benchmarks/results has no row of {name}: make bench", file=sys.stderr)
    if check:
        different = [page.name for page, text in wanted.items() if text != page.read_text()]
        for name in different:
            print(f"{name} differs from benchmarks/results: run python benchmarks/report.py", file=sys.stderr)
        return int(bool(different or lacking))
    for page, text in wanted.items():
        page.write_text(text)
    draw(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
