"""Which sources hold GPU kernels, and a digest of everything that a kernel's source depends on."""

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[3]
_QUOTED = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)
_RELATIVE = re.compile(r"^from \.(\w+) import", re.MULTILINE)


@dataclass(frozen=True)
class Source:
    """A file that is compiled: `language` is `cuda` or `triton`, `stem` the family of ops."""

    path: Path
    language: str
    stem: str


def find_sources(root: Path = ROOT) -> list[Source]:
    """Every CUDA source in csrc and every Triton module in kernels that has kernels."""
    cuda = [Source(path, "cuda", path.parent.name) for path in sorted(root.glob("csrc/*/*cuda.cu"))]
    modules = [Source(path, "triton", path.stem) for path in sorted(root.glob("kernels/*.py"))]
    marks = {"cuda": "__global__ ", "triton": "@triton.jit"}
    return [
        source
        for source in cuda + modules
        if any(marks[source.language] in file.read_text() for file in files_of(source.path))
    ]


def cuda_ops(root: Path = ROOT) -> set[str]:
    """Ops that the CUDA sources register."""
    texts = (path.read_text() for path in root.glob("csrc/*/*cuda.cu"))
    return {name for text in texts for name in re.findall(r'm\.impl\(\s*"(\w+)"', text)}


def files_of(path: Path) -> list[Path]:
    """A source and every file of ours that it includes or imports, directly or not."""
    found, waiting = set(), [path.resolve()]
    while waiting:
        one = waiting.pop()
        if one in found:
            continue
        found.add(one)
        text = one.read_text()
        imports = [f"{name}.py" for name in _RELATIVE.findall(text)]
        names = imports if one.suffix == ".py" else _QUOTED.findall(text)
        waiting += [file.resolve() for name in names for base in _bases(one) if (file := base / name).exists()]
    return sorted(found)


def _bases(path: Path) -> tuple[Path, ...]:
    """Where an include is looked for: beside the file, and in csrc."""
    return path.parent, path.parents[1]


@cache
def digest(path: Path) -> str:
    """SHA-256 over the contents of `files_of(path)`, in order of name."""
    whole = hashlib.sha256()
    for file in files_of(path):
        whole.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return whole.hexdigest()
