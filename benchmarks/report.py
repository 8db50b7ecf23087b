"""Draw the README's table and the figures from the recorded rows, and from nothing else.

`python benchmarks/report.py` writes both; `--check` fails where the README is not what the rows say.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastseg.testing.bench import best_rival
from fastseg.testing.contenders import OURS
from fastseg.testing.goals import goal_of

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
FIGURES = ROOT / "docs" / "figures"
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"

Row = dict[str, Any]


def load(results: Path = RESULTS) -> list[Row]:
    """All recorded rows."""
    return [json.loads(line) for path in sorted(results.glob("*.jsonl")) for line in path.read_text().splitlines()]


def contests(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows that were measured against each other, ours first."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        key = tuple(row[k] for k in ("cpu", "op", "mode", "case", "layout", "dtype", "threads"))
        groups.setdefault(key, []).append(row)
    return [sorted(group, key=lambda row: row["backend"] != OURS) for group in groups.values()]


def verdict(goal: float | None, speedup: float) -> str:
    """Goal and whether it is met; a loss is called one."""
    if speedup < 1:
        return f"{goal:g}x: **loss**" if goal else "**loss**"
    return "" if goal is None else f"{goal:g}x: {'met' if speedup >= goal else '**missed**'}"


def table(rows: Sequence[Row]) -> str:
    """The Markdown between the markers."""
    if not rows:
        return "No rows are recorded yet: `make bench`.\n"
    lines = []
    for group in contests(rows):
        ours, rival = group[0], best_rival(group)
        speedup = rival["ms"] / ours["ms"]
        share = "" if ours["share_of_ceiling"] is None else f"{100 * ours['share_of_ceiling']:.0f} %"
        layout = "" if ours["layout"] == "contiguous" else f" {ours['layout']}"
        lines.append(
            f"| `{ours['op']}` {ours['mode']} | {ours['case']}{layout} | {rival['ms']:.2f} ({rival['backend']}) "
            f"| {ours['ms']:.2f} [{ours['ms20']:.2f}-{ours['ms80']:.2f}] | {speedup:.1f}x "
            f"| {verdict(goal_of(ours['op'], ours['case'], ours['mode']), speedup)} | {share} |"
        )
    first = rows[0]
    dirty = ", some from a dirty tree" if any(row["dirty"] for row in rows) else ""
    where = "; ".join(sorted({f"{row['cpu']} ({row['isa']})" for row in rows if row["backend"] == OURS}))
    head = (
        f"Float32, {first['threads']} threads, {where}, torch {first['torch']}{dirty}. Times in ms: medians, and "
        "p20-p80 in brackets; the rival is the fastest of eager, eager channels_last, torch.compile and, for the "
        "confusion matrix, torchmetrics, measured in turns with ours. `ceiling` is the time that the bytes or the "
        "FLOPs need at least on this machine over the time taken.\n\n"
        "| op | case | best rival | fastseg | speed-up | goal | ceiling |\n|---|---|---|---|---|---|---|\n"
    )
    return head + "\n".join(lines) + "\n"


def with_table(readme: str, text: str) -> str:
    """The README with `text` between its markers."""
    if BEGIN not in readme or END not in readme:
        raise SystemExit(f"README.md must have the markers {BEGIN} and {END}")
    head, rest = readme.split(BEGIN, 1)
    return f"{head}{BEGIN}\n{text}{END}{rest.split(END, 1)[1]}"


def draw(rows: Sequence[Row], folder: Path = FIGURES) -> None:
    """One figure for each op: speed-up over the best rival by case, losses in red."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    for op in sorted({row["op"] for row in rows}):
        groups = contests([row for row in rows if row["op"] == op])
        names = [f"{g[0]['case']} {g[0]['mode']} {g[0]['layout']}" for g in groups]
        middle = [best_rival(g)["ms"] / g[0]["ms"] for g in groups]
        worst = [m - best_rival(g)["ms20"] / g[0]["ms80"] for m, g in zip(middle, groups, strict=True)]
        best = [best_rival(g)["ms80"] / g[0]["ms20"] - m for m, g in zip(middle, groups, strict=True)]
        figure, axes = plt.subplots(figsize=(8, 0.9 + 0.3 * len(groups)))
        colours = ["tab:red" if value < 1 else "tab:blue" for value in middle]
        axes.barh(names, middle, color=colours, xerr=[worst, best], error_kw={"ecolor": "0.4", "capsize": 2})
        axes.axvline(1, color="black", linewidth=1)
        for place, group in enumerate(groups):
            goal = goal_of(op, group[0]["case"], group[0]["mode"])
            if goal:
                axes.plot([goal, goal], [place - 0.4, place + 0.4], color="tab:green", linewidth=2)
        axes.invert_yaxis()
        axes.set_xlabel("times as fast as the best rival (bar ends: p20 to p80; green: the goal)")
        axes.set_title(op)
        figure.savefig(folder / f"bench_{op}.png", dpi=110, bbox_inches="tight")
        plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the table and the figures, or compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail where the README differs from the rows")
    check = parser.parse_args(arguments).check
    readme = ROOT / "README.md"
    rows = load()
    wanted = with_table(readme.read_text(), table(rows))
    if check:
        if wanted != readme.read_text():
            print("README.md differs from benchmarks/results: run python benchmarks/report.py", file=sys.stderr)
            return 1
        return 0
    readme.write_text(wanted)
    draw(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
