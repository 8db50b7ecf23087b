"""What every test may rely on: the process is left as it was found, and hypothesis draws the same examples."""

import os
from collections.abc import Iterator

# Before torch is loaded: threads that spin for work take the cores from the other workers' tests.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
import torch
from hypothesis import settings

from fastseg import testing

settings.register_profile("fastseg", derandomize=True, deadline=None, max_examples=100, print_blob=True)
settings.load_profile("fastseg")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "packaging: builds and installs the package; minutes, not seconds")
    config.addinivalue_line("markers", "parity: compares with peers, in the environment of `make parity`")


@pytest.fixture(autouse=True)
def same_process() -> Iterator[None]:
    """Thread count, determinism, instruction set and autograd mode do not leak from test to test."""
    threads = torch.get_num_threads()
    with testing.use_isa(testing.best_isa()):
        yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = True


@pytest.fixture
def poisoned() -> None:
    """Fresh memory is NaN or the largest integer, also where C++ asks for it."""
    torch.use_deterministic_algorithms(True)
