"""Files of measured rows: which commit they are of, and how they are kept."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
ROOT = Path(__file__).parents[2]
KEY = ("op", "case", "mode", "backend", "isa", "threads", "dtype", "layout", "cpu", "device")


def commit() -> tuple[str, bool]:
    """Commit of the checkout and whether it is dirty (results and the table made of them aside)."""
    if not (ROOT / ".git").exists():  # an installed package may lie in somebody else's checkout
        return "none", False

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    own = (":!benchmarks/results", ":!README.md", ":!docs")
    return git("rev-parse", "--short=12", "HEAD") or "none", bool(git("status", "--porcelain", "--", ".", *own))


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    partial.replace(path)


def load(path: Path) -> list[Row]:
    """Rows of a file of JSON lines, none where there is no file."""
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    if wrong := [row for row in rows if not isinstance(row, dict)]:
        raise ValueError(f"a line must be an object, got {wrong[0]!r}")
    return rows


def store(path: Path, rows: Sequence[Row]) -> None:
    """Append rows to a file of JSON lines; a row with the same key is replaced."""
    kept = {key_of(row): row for row in (*load(path), *rows)}
    write(path, "".join(json.dumps(row) + "\n" for row in kept.values()))


def key_of(row: Row) -> tuple[Any, ...]:
    """What makes a row the same measurement."""
    return tuple(row.get(k) for k in KEY)
