"""The symbolic sanitizer proves the rows, and reports copies of the kernels whose bounds are off by one."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fastseg.testing.ladder.kernels import FOLDER

ROOT = Path(__file__).parents[2]
BROKEN = {
    "mask": ("inside = at < row", "inside = at <= row", "writes outside out"),
    "neighbour": ("tl.minimum(left + 1, source_width - 1)", "left + 1", "reads outside source"),
    "row": ("tl.minimum(cell + 1, last)", "cell + 1", "reads outside source"),
    "end": ("tl.where(cell == last, height,", "tl.where(cell == last, height + 1,", "writes outside out"),
}


def sanitized(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fastseg.testing.ladder.sanitizer", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_every_small_row_is_proved() -> None:
    done = sanitized()
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", BROKEN)
def test_a_copy_that_is_off_by_one_is_reported(name: str, tmp_path: Path) -> None:
    old, new, fault = BROKEN[name]
    shutil.copytree(FOLDER, tmp_path / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
    file = tmp_path / "kernels" / "upsample.py"
    text = file.read_text()
    assert text.count(old) == 1, f"there is no {old!r}: give the mutant another place"
    file.write_text(text.replace(old, new))
    done = sanitized("--case", "upsample_bilinear-row", "--kernels", str(file.parent))
    assert done.returncode == 1 and fault in done.stdout, done.stdout + done.stderr
