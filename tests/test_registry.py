"""Which backend runs, who may choose it, and what is said about the others."""

import os
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import fastseg
from fastseg import _native, _registry, _triton, ops, testing

ROOT = Path(__file__).parents[1]
X = torch.randn(1, 3, 4, 5)
needs_triton = pytest.mark.skipif(bool(_triton.why_not), reason="asks for Triton: " + _triton.why_not)
needs_native = pytest.mark.skipif(not _native.loaded, reason="asks for the library: " + _native.why_not)


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh process, in the folder that it imports from."""
    given = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    command, folder = [sys.executable, "-c", code], given["PYTHONPATH"]
    return subprocess.run(command, cwd=folder, env=given, capture_output=True, text=True, check=False)


def paths(backend: str) -> list[str]:
    with fastseg.backend(backend), fastseg.trace() as taken:
        ops.upsample_bilinear(X, (8, 10))
    return taken


def test_reference_runs_the_reference() -> None:
    assert paths("reference") == ["upsample_bilinear:reference"]


@needs_native
@pytest.mark.parametrize("backend", ["auto", "native"])
def test_native_runs_the_kernel(backend: str) -> None:
    assert paths(backend) == [f"upsample_bilinear:cpu/{_native.cpu_isa()}"]


@pytest.mark.parametrize("backend", ["triton", "cuda"])
def test_an_explicit_choice_never_falls_back(backend: str) -> None:
    words = f"fastseg::upsample_bilinear: backend must be able to run, got '{backend}'"
    with fastseg.backend(backend), pytest.raises(RuntimeError, match=words) as caught:
        ops.upsample_bilinear(X, (8, 10))
    for reason in _registry.supports(_registry.OPS["upsample_bilinear"], X, backend):
        assert reason in str(caught.value)


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_a_tangent_is_refused_and_not_lost(backend: str) -> None:
    larger = lambda x: ops.upsample_bilinear(x, (8, 10))  # noqa: E731
    with fastseg.backend(backend), pytest.raises(NotImplementedError, match="upsample_bilinear: tensors must have no"):
        torch.func.jvp(larger, (X,), (X,))
    with fastseg.backend(backend), torch.autograd.forward_ad.dual_level():
        assert larger(X).shape[2:] == (8, 10)


def test_every_reason_is_given() -> None:
    reasons = _registry.supports(_registry.OPS["upsample_bilinear"], X.to(torch.complex64), "triton")
    assert len(reasons) == 2 and "torch.complex64" in reasons[0] and "triton" in reasons[1]


def test_the_choice_ends_with_the_block_even_after_an_error() -> None:
    with pytest.raises(KeyError), fastseg.backend("reference"):
        with fastseg.backend("triton"):
            pass
        assert paths_now() == ["upsample_bilinear:reference"]
        raise KeyError
    assert fastseg._config.current_backend() == "auto"


def test_one_choice_can_be_nested_in_itself() -> None:
    choice = fastseg.backend("reference")
    with choice, fastseg.backend("native"), choice:
        pass
    assert fastseg._config.current_backend() == "auto"


def paths_now() -> list[str]:
    with fastseg.trace() as taken:
        ops.upsample_bilinear(X, (8, 10))
    return taken


def test_the_variable_is_where_the_choice_starts() -> None:
    code = (
        "import torch, fastseg\n"
        "with fastseg.trace() as paths: fastseg.ops.upsample_bilinear(torch.zeros(1, 1, 2, 2), (4, 4))\n"
        "print(paths)"
    )
    assert python(code, FASTSEG_BACKEND="reference").stdout.strip() == "['upsample_bilinear:reference']"
    refused = python(code, FASTSEG_BACKEND="cuda")
    assert refused.returncode != 0 and "backend must be able to run, got 'cuda'" in refused.stderr


@pytest.mark.parametrize(
    ("variable", "values"),
    [
        ("FASTSEG_BACKEND", "auto, reference, native, triton, cuda"),
        pytest.param("FASTSEG_CPU_ISA", ", ".join(testing.isas()) + " here", marks=needs_native),
    ],
    ids=["backend", "isa"],
)
def test_a_wrong_variable_is_an_error_of_the_first_op_and_not_of_the_import(variable: str, values: str) -> None:
    code = (
        "import torch, fastseg\n"
        "x = torch.zeros(1, 1, 2, 2)\n"
        "with fastseg.backend('reference'): fastseg.ops.upsample_bilinear(x, (4, 4))\n"
        "for ask in (fastseg.ops.upsample_bilinear, lambda *_: fastseg.describe('upsample_bilinear')):\n"
        "    try: ask(x, (4, 4))\n"
        "    except ValueError as error: print(error)\n"
    )
    said = python(code, **{variable: "bogus"}).stdout.splitlines()
    assert len(said) == 2 and said[0] == said[1] and said[0].startswith("fastseg::")
    assert said[0].endswith(f": {variable} must be one of {values}, got 'bogus'")


@pytest.mark.parametrize(
    ("kept", "reason"),
    [(0, "file too short"), pytest.param(0.5, "it is cut short at", marks=needs_native), (None, "invalid ELF header")],
    ids=["empty", "half", "text"],
)
def test_a_damaged_library_is_said_once_and_an_explicit_choice_raises(
    tmp_path: Path, kept: float | None, reason: str
) -> None:
    shutil.copytree(ROOT / "fastseg", tmp_path / "fastseg", ignore=shutil.ignore_patterns("*.so", "weights", "__pyc*"))
    library = tmp_path / "fastseg" / "lib" / _native.LIBRARY.name
    library.parent.mkdir(exist_ok=True)
    whole = _native.LIBRARY.read_bytes() if kept else b""
    library.write_bytes(b"no library\n" * 100 if kept is None else whole[: int(len(whole) * kept)])
    code = (
        "import torch, warnings\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    import fastseg\n"
        "    x = torch.zeros(1, 1, 2, 2)\n"
        "    for _ in range(2):\n"
        "        fastseg.ops.upsample_bilinear(x, (4, 4))\n"
        "        fastseg.ops.upsample_argmax(x, (4, 4))\n"
        "print(*(w.message for w in caught if 'fastseg' in str(w.message)), sep='\\n')\n"
        "told = fastseg.describe('upsample_argmax', x)\n"
        "print(told.path, *told.reasons['native'])\n"
        "try:\n"
        "    with fastseg.backend('native'): fastseg.ops.upsample_argmax(x, (4, 4))\n"
        "except RuntimeError as error: print(error)\n"
    )
    done = python(code, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    warned, told, refused = done.stdout.splitlines()
    why = f"{library.name} cannot be loaded: {reason}"
    assert warned.startswith(f"fastseg::upsample_bilinear runs its slow reference: {why}")
    assert told.startswith(f"reference {why}")
    assert refused.startswith(f"fastseg::upsample_argmax: backend must be able to run, got 'native': {why}")


def test_describe_says_what_would_run_and_why_not_the_others() -> None:
    description = fastseg.describe("upsample_argmax", X, (8, 10))
    assert description == fastseg.describe(ops.upsample_argmax, logits=X, size=(8, 10))
    assert description.path == testing.expected_path(testing.best_isa())
    assert {"triton", "cuda"} <= set(description.reasons) and all(description.reasons.values())
    assert paths("auto") == [f"upsample_bilinear:{description.path}"]
    with fastseg.backend("reference"):
        assert fastseg.describe("upsample_argmax", X, (8, 10)).path == "reference"
    with fastseg.backend("cuda"):
        assert fastseg.describe("upsample_argmax", X, (8, 10)).path == "none"
    with pytest.raises(ValueError, match=r"op must be one of .*upsample_argmax.*, got 'upsample'"):
        fastseg.describe("upsample")


TARGET = torch.zeros(1, 8, 10, dtype=torch.uint8)
CALLS = {
    "labels": (ops.confusion_matrix, (TARGET, TARGET, 3), {}),
    "logits": (ops.confusion_matrix, (X, TARGET, 3), {}),
    "logits by name": (ops.confusion_matrix, (), {"num_classes": 3, "target": TARGET, "prediction": X}),
    "loss": (ops.upsample_cross_entropy, (X, TARGET), {}),
    "loss by name": (ops.upsample_cross_entropy, (), {"target": TARGET, "logits": X}),
    "argmax": (ops.upsample_argmax, (X, (8, 10)), {}),
    "confidence": (ops.upsample_argmax, (X, (8, 10)), {"return_confidence": True}),
    "threshold": (ops.upsample_threshold, (X, (8, 10), 0.5), {"align_corners": True}),
}


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("function, args, kwargs", CALLS.values(), ids=CALLS)
def test_describe_says_what_a_trace_shows(function: Any, args: Any, kwargs: Any, backend: str) -> None:
    with fastseg.backend(backend):
        told = fastseg.describe(function, *args, **kwargs)
        assert told == fastseg.describe(function.__name__, *args, **kwargs)
        with fastseg.trace() as taken:
            function(*args, **kwargs)
    assert taken == [f"{told.op}:{told.path}"]


def test_describe_counts_nothing() -> None:
    out = torch.zeros(3, 3, dtype=torch.int64)
    fastseg.describe(ops.confusion_matrix, TARGET, TARGET, 3, out=out)
    assert not out.any()


def test_describe_refuses_what_the_call_refuses() -> None:
    with pytest.raises(ValueError, match="fastseg::upsample_argmax: logits must be a floating tensor"):
        fastseg.describe(ops.upsample_argmax, X.int(), (8, 10))
    with pytest.raises(TypeError, match="bogus"):
        fastseg.describe(ops.upsample_argmax, X, (8, 10), bogus=1)
    assert fastseg.describe(ops.upsample_argmax, X.int()).path == "none"


def test_without_the_library_one_warning_and_right_results() -> None:
    code = (
        "import pathlib, sys, warnings, torch\n"
        "exists = pathlib.Path.exists\n"
        "pathlib.Path.exists = lambda p, **k: False if p.name == 'libfastseg_cpu.so' else exists(p, **k)\n"
        "import fastseg\n"
        "assert not fastseg._native.loaded\n"
        "x = torch.randn(1, 3, 4, 5, requires_grad=True)\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    for _ in range(3):\n"
        "        fastseg.ops.upsample_softmax(x, (8, 10)).sum().backward()\n"
        "        fastseg.ops.upsample_argmax(x, (8, 10))\n"
        "ours = [str(w.message) for w in caught if w.category is RuntimeWarning]\n"
        "assert len(ours) == 1 and 'runs its slow reference' in ours[0] and 'was not built' in ours[0], ours\n"
        "from fastseg.cli.main import app\n"
        "app(['selftest'])\n"
    )
    done = python(code)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@needs_native
def test_with_the_library_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ops.upsample_bilinear(X, (8, 10))


def test_importing_the_package_imports_no_triton() -> None:
    code = (
        "import sys, torch.utils.flop_counter\n"  # imports triton where it is, as whoever counts FLOPs does
        "for name in [name for name in sys.modules if name.split('.')[0] == 'triton']: del sys.modules[name]\n"
        "import fastseg\n"
        "sys.exit(bool({'triton', 'fastseg.kernels'} & set(sys.modules)))\n"
    )
    assert python(code).returncode == 0


@pytest.mark.parametrize("interpret", ["0", "1"])
def test_without_triton_its_ops_have_none_and_say_so(interpret: str) -> None:
    code = (
        "import sys\n"
        "sys.modules['triton'] = None\n"
        "import torch, fastseg\n"
        "from fastseg import _native, _registry\n"
        "op, key = _registry.OPS['upsample_bilinear'], 'CUDA'\n"
        "assert not _registry.has_kernel(op.name, key)\n"
        "print(_native.why_not)\n"
        "print(*_registry.supports(op, torch.empty(0), 'triton'))\n"
    )
    done = python(code, TRITON_INTERPRET=interpret)
    assert done.returncode == 0, done.stderr
    why_not, reason = done.stdout.splitlines()
    assert (why_not, reason) == (_native.why_not, "triton is not installed")


ON_CUDA = [
    ("upsample_bilinear", "triton", ["", "", "upsample_bilinear has no cuda kernel"]),
    ("upsample_bilinear_backward", "cuda", ["{absent}", "upsample_bilinear_backward has no triton kernel", "{absent}"]),
]


class OnCuda:
    """As much of a CUDA tensor as the choice of a backend looks at."""

    dtype, device = torch.float32, torch.device("cuda")


@needs_triton
@pytest.mark.parametrize("name, path, reasons", ON_CUDA, ids=[row[0] for row in ON_CUDA])
def test_what_cuda_tensors_run_on(name: str, path: str, reasons: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    op, backends = _registry.OPS[name], ("native", "triton", "cuda")
    assert _registry.champion(op, "cuda") == path

    def told() -> list[str]:
        return ["; ".join(_registry.supports(op, OnCuda(), b)) for b in backends]  # type: ignore[arg-type]

    monkeypatch.setattr(_native, "cuda_why_not", "libfastseg_cuda.so was not built")
    assert told() == [reason.format(absent="libfastseg_cuda.so was not built") for reason in reasons]
    monkeypatch.setattr(_native, "cuda_why_not", "")
    assert told() == [reason.format(absent=f"{name} has no cuda kernel") for reason in reasons]
    op = replace(op, cuda=True)
    assert told() == [reason.format(absent="") for reason in reasons]


@needs_triton
def test_the_interpreter_takes_the_place_of_the_library() -> None:
    code = (
        "import torch, warnings, fastseg\n"
        "from fastseg import _native, ops\n"
        "x = torch.randn(1, 3, 4, 5, requires_grad=True)\n"
        "def path(backend, op):\n"
        "    with fastseg.backend(backend), fastseg.trace() as taken: op(x, (8, 10))\n"
        "    return taken\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    print(path('auto', ops.upsample_bilinear), path('triton', ops.upsample_threshold), not caught)\n"
        "    print(path('auto', ops.upsample_softmax), path('reference', ops.upsample_bilinear), len(caught))\n"
        "    ops.upsample_bilinear(x, (8, 10)).sum().backward()\n"
        "compiled = torch.compile(lambda x: ops.upsample_bilinear(x, (8, 10)), fullgraph=True, backend='aot_eager')\n"
        "torch.testing.assert_close(compiled(x), ops.upsample_bilinear(x, (8, 10)))\n"
        "print(fastseg.describe('upsample_bilinear', x, (8, 10)).path, _native.why_not)\n"
    )
    done = python(code, TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stderr
    kernels, references, told = done.stdout.splitlines()
    assert kernels == "['upsample_bilinear:triton/interpreter'] ['upsample_threshold:triton/interpreter'] True"
    assert references == "['upsample_softmax:reference'] ['upsample_bilinear:reference'] 1"
    assert told == "triton/interpreter TRITON_INTERPRET is set, so the Triton kernels take its place"


def test_a_damaged_cuda_library_is_told_where_torch_has_cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "libfastseg_cuda.so"
    monkeypatch.setattr(_native, "CUDA_LIBRARY", library)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    assert _native._load_cuda().startswith("libfastseg_cuda.so was not built")
    library.write_bytes(b"no library\n" * 100)
    assert _native._load_cuda().startswith("libfastseg_cuda.so cannot be loaded: invalid ELF header")
    monkeypatch.setattr(torch.version, "cuda", None)
    assert _native._load_cuda() == "torch is built without CUDA"


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_an_outer_trace_goes_on_behind_an_inner_one(backend: str) -> None:
    with fastseg.backend(backend), fastseg.trace() as outer:
        ops.upsample_bilinear(X, (8, 10))
        with fastseg.trace() as inner:
            ops.upsample_argmax(X, (8, 10))
        ops.upsample_softmax(X, (8, 10))
    assert [path.split(":")[0] for path in inner] == ["upsample_argmax"]
    assert [path.split(":")[0] for path in outer] == ["upsample_bilinear", "upsample_argmax", "upsample_softmax"]


def test_a_traced_block_leaves_nothing_behind() -> None:
    with fastseg.trace() as first:
        ops.upsample_bilinear(X, (8, 10))
    ops.upsample_bilinear(X, (8, 10))
    with fastseg.trace() as second:
        pass
    assert len(first) == 1 and not second
