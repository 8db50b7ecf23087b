"""Each way to install the package gives one that works, in a clean environment outside the tree."""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from fastseg import testing

ROOT = Path(__file__).parents[2]
# One worker, because the builds share a tree.
pytestmark = [pytest.mark.packaging, pytest.mark.xdist_group("packaging")]
# Run outside the tree, so that only what was installed can be imported.
WORKS = """
import importlib.metadata, pathlib, sys
import fastseg, fastseg.kernels
from fastseg import _native, testing
assert importlib.metadata.version("fastseg") == fastseg.__version__
assert fastseg.kernels.__name__ == "fastseg.kernels"
assert (pathlib.Path(fastseg.__file__).parent / "py.typed").exists()
assert _native.loaded == (sys.argv[1] == "native"), _native.why_not
for case in testing.find_cases(None, "smoke"):
    testing.judge(case, case.dtypes[0], testing.run(case, case.dtypes[0]))
"""


def run(*command: object, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": "", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def borrowed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This environment's packages, torch above all, but not this one's fastseg."""
    folder = tmp_path_factory.mktemp("borrowed")
    for path in (Path(p) for p in sys.path if p.endswith("site-packages")):
        for entry in path.iterdir():
            if "fastseg" not in entry.name and not (folder / entry.name).exists():
                (folder / entry.name).symlink_to(entry)
    return folder


@pytest.fixture
def python(tmp_path: Path, borrowed: Path) -> Path:
    """A clean environment that borrows packages."""
    venv.create(tmp_path / "env", with_pip=False)
    site = next((tmp_path / "env").glob("lib/python*/site-packages"))
    (site / "borrowed.pth").write_text(str(borrowed))
    return tmp_path / "env" / "bin" / "python"


def clone(folder: Path) -> Path:
    """What git would clone, with the changes that are not committed yet."""
    for name in run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT).splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone whose build folder stays, so that only the first build compiles."""
    return clone(tmp_path_factory.mktemp("clone") / "tree")


def pip(python: Path, *arguments: object, **environment: str) -> str:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    quiet = ("-m", "pip", "--disable-pip-version-check", "install", "--no-build-isolation", "--no-deps", "-v")
    # Unoptimised and mostly without nvcc: what is tested is the way, and it is shorter so.
    shorter = {"DEBUG": "1", "FASTSEG_CUDA": "0"}
    return run(python, *quiet, *arguments, cwd=python.parent, PATH=path, **(shorter | environment))


def works(python: Path, kind: str) -> str:
    """Prove the smoke rows, and return what `fastseg doctor` says."""
    run(python, "-c", WORKS, kind, cwd=python.parent)
    return run(python.parent / "fastseg", "doctor", cwd=python.parent)


@pytest.mark.parametrize("mode", ["lenient", "strict"])
def test_editable(python: Path, tree: Path, mode: str) -> None:
    pip(python, "-e", tree, "--config-settings", f"editable_mode={mode}", FASTSEG_NATIVE="1")
    assert testing.best_isa() in works(python, "native")


def test_wheel(python: Path, tree: Path) -> None:
    pip(python, tree, FASTSEG_NATIVE="1")
    where = run(python, "-c", "import fastseg; print(fastseg.__file__)", cwd=python.parent)
    assert "site-packages" in where
    assert testing.best_isa() in works(python, "native")


@pytest.mark.skipif(not shutil.which("nvcc"), reason="the CUDA kernels are compiled: no nvcc")
def test_wheel_with_cuda_kernels(python: Path, tree: Path) -> None:
    said = pip(python, tree, FASTSEG_CUDA="1", FASTSEG_CUDA_ARCHS="90")
    assert "fastseg: built with the native library and the CUDA kernels" in said
    where = run(python, "-c", "import fastseg; print(fastseg.__file__)", cwd=python.parent).strip()
    library = Path(where).parent / "lib" / "libfastseg_cuda.so"
    run(python, "-c", f"import torch; torch.ops.load_library({str(library)!r})", cwd=python.parent)


def test_source_archive(python: Path, tree: Path, tmp_path: Path) -> None:
    run(sys.executable, "setup.py", "-q", "sdist", "-d", tmp_path, cwd=tree)
    (archive,) = tmp_path.glob("fastseg-*.tar.gz")
    shutil.unpack_archive(archive, tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    # In the tree's place, with what was compiled there: CMake's list of sources and the files' times say what is new.
    (tree / "build").mkdir(exist_ok=True)
    shutil.move(tree / "build", unpacked)
    shutil.rmtree(tree)
    shutil.move(unpacked, tree)
    pip(python, tree, FASTSEG_NATIVE="1")
    works(python, "native")


def test_pure_python(python: Path, tmp_path: Path) -> None:
    pip(python, clone(tmp_path / "tree"), FASTSEG_NATIVE="0")
    warned = run(python, "-c", WORKS, "reference", cwd=python.parent)
    assert warned.count("RuntimeWarning") == 1 and "runs its slow reference" in warned
    assert "was not built" in works(python, "reference")


def test_a_demanded_build_that_is_impossible_fails(python: Path, tree: Path) -> None:
    done = subprocess.run(
        [str(python), "-m", "pip", "install", "--no-build-isolation", "--no-deps", "-v", str(tree)],
        cwd=python.parent,
        env={**os.environ, "PYTHONPATH": "", "FASTSEG_NATIVE": "1", "CXX": "no-such-compiler"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0 and "FASTSEG_NATIVE=1, but" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"FASTSEG_CUDA": "1", "PATH": "/nowhere"}, "fastseg: FASTSEG_CUDA=1, but nvcc was not found"),
        ({"FASTSEG_CUDA": "1", "FASTSEG_NATIVE": "0"}, "fastseg: FASTSEG_CUDA=1, but FASTSEG_NATIVE=0"),
        ({"FASTSEG_CUDA": "yes"}, "fastseg: FASTSEG_CUDA must be auto, 1 or 0, got 'yes'"),
        ({"FASTSEG_NATIVE": "2"}, "fastseg: FASTSEG_NATIVE must be auto, 1 or 0, got '2'"),
    ],
)
def test_an_impossible_wish_fails_and_its_last_line_says_why(
    tmp_path: Path, variables: dict[str, str], said: str
) -> None:
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=clone(tmp_path / "tree"),
        env={**os.environ, "PYTHONPATH": "", **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and done.stderr.splitlines()[-1] == said


def test_the_builds_have_one_worker(request: pytest.FixtureRequest) -> None:
    assert "PYTEST_XDIST_WORKER" not in os.environ or request.node.nodeid.endswith("@packaging")


def test_kernels_are_imported_by_one_name_only() -> None:
    code = "import sys; sys.path.insert(0, '.'); import kernels"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "fastseg.kernels" in done.stderr
