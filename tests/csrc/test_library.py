"""What the compiled library needs and does to a process."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from fastseg import _native, _registry, testing

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not _native.loaded, reason="the library is looked at: " + _native.why_not)


def output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def undefined(library: Path) -> list[str]:
    """Names that the loader must find elsewhere, without their versions."""
    lines = output("nm", "-D", "--undefined-only", str(library)).splitlines()
    return [line.split()[-1].split("@")[0] for line in lines]


@pytest.fixture(params=["cpu", "cuda"])
def library(request: pytest.FixtureRequest) -> Path:
    found = {"cpu": _native.LIBRARY, "cuda": _native.CUDA_LIBRARY}[request.param]
    if not found.exists():
        pytest.skip(f"{found.name} was not built: no nvcc")
    return found


def test_it_needs_no_python(library: Path) -> None:
    assert not [name for name in undefined(library) if name.startswith(("Py", "_Py"))]


def test_it_needs_nothing_of_torch_but_the_stable_abi(library: Path) -> None:
    names = undefined(library)
    assert any(name.startswith("aoti_torch_") for name in names)
    demangled = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    assert not re.findall(r"^.*\b(?:at|c10|torch)::.*$", demangled, re.MULTILINE)


def test_it_exports_nothing_that_a_kernel_defines(library: Path) -> None:
    exported = output("nm", "-D", "--defined-only", "-C", str(library)).splitlines()
    assert not [line for line in exported if "fastseg::" in line or re.search(r"_(?:base|avx2|avx512)$", line)]


def test_it_loads_with_torch_2_10(library: Path) -> None:
    report = output(str(Path(sys.executable).parent / "torch-abi-audit"), str(library))
    assert "STABLE" in report and re.search(r"min(?:imum)? torch\W+2\.10", report, re.IGNORECASE), report


@pytest.mark.skipif(not _native.CUDA_LIBRARY.exists(), reason="libfastseg_cuda.so was not built: no nvcc")
def test_the_cuda_library_loads_without_cuda() -> None:
    """Next to a torch without CUDA: it brings its CUDA runtime, and every op of a stem with CUDA sources."""
    needed = output("readelf", "-d", str(_native.CUDA_LIBRARY))
    assert "libcuda" not in needed, needed
    code = (
        "import torch, fastseg\n"
        "from fastseg import _native, _registry\n"
        "torch.ops.load_library(str(_native.CUDA_LIBRARY))\n"
        "print(*(n for n, op in _registry.OPS.items() if _registry.has_kernel(n, 'CUDA') or op.triton))\n"
        "fastseg.ops.upsample_argmax(torch.randn(1, 3, 4, 5), (8, 10))\n"
    )
    stems = {path.parent.name for path in (ROOT / "csrc").glob("*/*.cu")}

    def is_of_them(module: str) -> bool:
        return any(module.split(".")[-1].startswith(stem) for stem in stems)

    promised = {n for n, op in _registry.OPS.items() if op.triton or is_of_them(op.reference.__module__)}
    assert set(output(sys.executable, "-c", code).split()) == promised


def test_the_current_stream_is_found_as_python_loads_torch(tmp_path: Path) -> None:
    """Python opens torch for itself alone: what libtorch_cuda.so has is in no global scope."""
    sources = {
        "libtorch_cuda.so": 'extern "C" int aoti_torch_get_current_cuda_stream(int, void**) { return 7; }',
        "libtorch_python.so": 'extern "C" int aoti_torch_get_current_cuda_stream(int, void**);\n'
        "int keep() { return aoti_torch_get_current_cuda_stream(0, nullptr); }",
        "libprobe.so": f'#include "{ROOT}/csrc/common/current_stream.h"\n'
        'extern "C" int probe() { auto f = fastseg::find_current_stream(); return f ? f(0, nullptr) : -1; }',
    }
    for name, source in sources.items():
        (tmp_path / f"{name}.cpp").write_text(source)
        needs = [str(tmp_path / "libtorch_cuda.so"), f"-Wl,-rpath,{tmp_path}"] if "python" in name else []
        output("g++", "-shared", "-fPIC", f"-Wl,-soname,{name}", str(tmp_path / f"{name}.cpp"), *needs, "-o",
               str(tmp_path / name))  # fmt: skip
    code = (
        "import ctypes\n"
        f"probe = ctypes.CDLL('{tmp_path}/libprobe.so').probe\n"
        "before = probe()\n"
        f"ctypes.CDLL('{tmp_path}/libtorch_python.so')\n"
        "print(before, probe())\n"
    )
    assert output(sys.executable, "-c", code).split() == ["-1", "7"]


def test_no_object_of_an_instruction_set_has_a_weak_symbol() -> None:
    """The linker may hand a weak function compiled for one instruction set to everybody."""
    objects = [path for path in ROOT.glob("build/native-*/CMakeFiles/kernels_*.dir/**/*.o")]
    if not objects:
        pytest.skip("the tree has no build folder: the package was installed, not built here")
    for path in objects:
        symbols = output("nm", "-C", str(path)).splitlines()
        assert not [line for line in symbols if re.search(r"^[0-9a-f]* *[WVu] ", line)], path


@pytest.mark.parametrize("isa", testing.isas())
def test_loading_and_running_it_leaves_denormals_alone(isa: str) -> None:
    code = (
        "import torch, fastseg\n"
        f"torch.ops.fastseg._use_cpu_isa({isa!r})\n"
        "fastseg.ops.upsample_softmax(torch.randn(1, 5, 9, 9), (33, 33))\n"
        "print(2.2250738585072014e-308 / 2)\n"
    )
    assert float(output(sys.executable, "-c", code)) > 0


def test_an_unknown_instruction_set_is_refused_by_the_first_op() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import torch, fastseg; fastseg.ops.upsample_softmax(torch.zeros(1, 2, 3, 3), (6, 6))"],
        env={"FASTSEG_CPU_ISA": "sse9", "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0 and "sse9" in done.stderr


@pytest.mark.parametrize("isa", testing.isas())
def test_the_variable_chooses_the_instruction_set(isa: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from fastseg import _native; print(_native.cpu_isa())"],
        env={"FASTSEG_CPU_ISA": isa, "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == isa


def test_build_info_and_ceilings_need_no_torch() -> None:
    """`fastseg._C` links no torch, and what it measures is positive and grows no slower than a thread."""
    module = next((ROOT / "fastseg").glob("_C.*.so"))
    code = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('fastseg._C', {str(module)!r})\n"
        "c = importlib.util.module_from_spec(spec); spec.loader.exec_module(c)\n"
        "assert 'torch' not in sys.modules\n"
        "assert c.build_info()['compiler'] and 'base' in c.isas()\n"
        "assert c.measure_copy(1) > 1e8 and c.measure_fma(1) > 1e8\n"
    )
    output(sys.executable, "-c", code)
