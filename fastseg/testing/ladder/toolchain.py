"""The compilers and disassemblers that make and read GPU machine code without a GPU."""

import importlib.util
import re
import shutil
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path


class MissingTool(RuntimeError):
    """A tool is not installed: the message says which and where it comes from."""


@cache
def find(name: str) -> str:
    """Path of nvcc, cuobjdump, c++filt or a host compiler; Triton's wheel brings a cuobjdump."""
    if path := shutil.which(name):
        return path
    spec = importlib.util.find_spec("triton")
    if spec and spec.origin:
        bundled = Path(spec.origin).parent / "backends" / "nvidia" / "bin" / name
        if bundled.exists():
            return str(bundled)
    origin = {"nvcc": "the CUDA toolkit", "cuobjdump": "the CUDA toolkit and pip install triton", "c++filt": "binutils"}
    raise MissingTool(f"{name} was not found ({origin.get(name, 'a C++ compiler')} has it)")


def require(languages: tuple[str, ...]) -> None:
    """Raise MissingTool unless code of these languages (`cuda`, `triton`) can be compiled and read here."""
    if "cuda" in languages:
        find("nvcc")
    if "triton" in languages and importlib.util.find_spec("triton") is None:
        raise MissingTool("triton was not found (pip install triton)")
    for name in ("cuobjdump", "c++filt", "g++"):
        find(name)
    if not (cuda_include() / "cuda_occupancy.h").exists():
        raise MissingTool("cuda_occupancy.h was not found (the CUDA toolkit has it)")


@cache
def cuda_include() -> Path:
    """Folder of the CUDA headers of nvcc's toolkit."""
    told = subprocess.run([find("nvcc"), "--dryrun", "-c", "-x", "cu", "/dev/null", "-o", "/dev/null"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    top = re.search(r"^#\$ TOP=(.*)$", told.stderr, re.MULTILINE)
    if not top:
        raise MissingTool("nvcc does not say where its toolkit is")
    return Path(top[1]).resolve() / "include"


@cache
def version(language: str) -> str:
    """Name and version of the compiler of a language: rows of another one are no baseline."""
    if language == "triton":
        return f"triton {metadata.version('triton')}"
    told = subprocess.run([find("nvcc"), "--version"], capture_output=True, text=True, check=True).stdout
    release = re.search(r"\bV([\d.]+)", told)
    return f"nvcc {release[1] if release else 'unknown'}"
