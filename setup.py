"""Builds the native libraries with CMake; everything else stands in pyproject.toml."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
NATIVE = os.environ.get("FASTSEG_NATIVE") or "auto"
CUDA = os.environ.get("FASTSEG_CUDA") or "auto"
SWITCHES = {"FASTSEG_NATIVE": NATIVE, "FASTSEG_CUDA": CUDA}
for name, value in SWITCHES.items():
    if value not in ("auto", "1", "0"):
        sys.exit(f"fastseg: {name} must be auto, 1 or 0, got {value!r}")
DEMANDED = [f"{name}=1" for name, value in SWITCHES.items() if value == "1"]


def why_not() -> str:
    """Reason why the build that is asked for is impossible here, or nothing."""
    if NATIVE == "0":
        return "FASTSEG_NATIVE=0"
    if CUDA == "1" and not shutil.which("nvcc"):
        return "nvcc was not found"
    try:
        import torch  # noqa: F401
    except ImportError:
        return "torch is not importable: install torch first, then fastseg with --no-build-isolation"
    if not shutil.which("cmake"):
        return "cmake was not found"
    if not any(map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))):
        return "no C++ compiler was found"
    return ""


class CMakeBuild(build_ext):
    """Runs CMake, which writes the libraries into the package folder of the build (or of the tree, if editable)."""

    def run(self) -> None:
        reason = why_not()
        # A compiler for GPUs that fails is no reason to do without the kernels of the CPU, unless it was asked for.
        for cuda in ("auto", "0") if CUDA == "auto" and not reason else (CUDA,):
            if not why_not():
                reason = self.attempt(cuda)
            if not reason:
                break
        if reason and DEMANDED:
            sys.exit(f"fastseg: {' and '.join(DEMANDED)}, but {reason}")
        state = f"without the native library: {reason}" if reason else self.state(cuda)
        print(f"fastseg: built {state}", file=sys.stderr)

    def state(self, cuda: str) -> str:
        if cuda != "0" and (self.destination() / "lib" / "libfastseg_cuda.so").exists():
            return "with the native library and the CUDA kernels"
        absent = {"0": "FASTSEG_CUDA=0"}.get(CUDA, "nvcc was not found" if cuda != "0" else "nvcc failed")
        return f"with the native library, without CUDA kernels: {absent}"

    def attempt(self, cuda: str) -> str:
        """Build; return why that failed, or nothing."""
        try:
            self.build(cuda)
        except subprocess.CalledProcessError as error:
            return f"{error.cmd[0]} failed with code {error.returncode}"
        return ""

    def destination(self) -> Path:
        return ROOT / "fastseg" if self.inplace else Path(self.build_lib).resolve() / "fastseg"

    def build(self, cuda: str) -> None:
        import torch

        package = self.destination()
        kind = "Debug" if os.environ.get("DEBUG") == "1" else "Release"
        folder = ROOT / "build" / f"native-{kind}"  # kept, so that the next build compiles what changed
        torch_root = Path(torch.__file__).parent
        options = {
            "CMAKE_BUILD_TYPE": kind,
            "FASTSEG_OUTPUT": package,
            "FASTSEG_TORCH_INCLUDE": torch_root / "include",
            "FASTSEG_TORCH_LIB": torch_root / "lib",
            "FASTSEG_PYTHON": sys.executable,
            "FASTSEG_CUDA": cuda,
            "FASTSEG_CUDA_ARCHS": os.environ.get("FASTSEG_CUDA_ARCHS", ""),
            "FASTSEG_WERROR": "ON" if os.environ.get("CI") else "OFF",
        }
        generator = ["-G", "Ninja"] if shutil.which("ninja") else []
        defines = [f"-D{name}={value}" for name, value in options.items()]
        subprocess.run(["cmake", "-S", str(ROOT), "-B", str(folder), *generator, *defines], check=True)
        (package / "lib" / "libfastseg_cuda.so").unlink(missing_ok=True)  # of an earlier build, which this one may lack
        subprocess.run(["cmake", "--build", str(folder), "--parallel"], check=True)

    def get_output_mapping(self) -> dict[str, str]:
        """What an editable installation links to: built name -> file in the tree."""
        built, tree = Path(self.build_lib) / "fastseg", ROOT / "fastseg"
        return {str(built / p.relative_to(tree)): str(p) for p in libraries(tree)} if self.inplace else {}

    def get_outputs(self) -> list[str]:
        return list(self.get_output_mapping() or map(str, libraries(Path(self.build_lib) / "fastseg")))


def libraries(package: Path) -> list[Path]:
    return [*package.glob("lib/*.so"), *package.glob("_C*.so")]


setup(
    packages=[*find_packages(include=["fastseg", "fastseg.*"]), "fastseg.kernels"],
    package_dir={"fastseg": "fastseg", "fastseg.kernels": "kernels"},
    ext_modules=[Extension("fastseg._C", [])] if NATIVE != "0" or DEMANDED else [],
    cmdclass={"build_ext": CMakeBuild},
)
