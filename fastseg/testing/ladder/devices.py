"""GPUs by name: what their makers say of them, and what a multiprocessor of each architecture has."""

from dataclasses import dataclass

# What native code is made for: compute capability without the dot.
ARCHS = (75, 80, 86, 89, 90, 100, 120)


@dataclass(frozen=True)
class Multiprocessor:
    """Limits of one multiprocessor: resident threads, 32-bit registers, bytes of shared memory, the most of it that one
    block may have, what each block costs beside its own, and the rate of float64 over that of float32.

    CUDA C++ Programming Guide, compute capabilities; NVIDIA/cccl, `cuda/__device/arch_traits.h`.
    """

    threads: int
    shared: int
    block_shared: int
    reserved: int
    double_rate: float
    registers: int = 65536

    @property
    def warps(self) -> int:
        """Resident warps at most."""
        return self.threads // 32


def _kib(total: int, block: int) -> tuple[int, int, int]:
    return total * 1024, block * 1024, (total - block) * 1024


MULTIPROCESSORS = {
    75: Multiprocessor(1024, *_kib(64, 64), 1 / 32),
    80: Multiprocessor(2048, *_kib(164, 163), 1 / 2),
    86: Multiprocessor(1536, *_kib(100, 99), 1 / 64),
    89: Multiprocessor(1536, *_kib(100, 99), 1 / 64),
    90: Multiprocessor(2048, *_kib(228, 227), 1 / 2),
    100: Multiprocessor(2048, *_kib(228, 227), 1 / 2),
    120: Multiprocessor(1536, *_kib(100, 99), 1 / 64),
}


@dataclass(frozen=True)
class Device:
    """One GPU.

    `clock` is the boost clock in GHz, `bandwidth` that of device memory in GB/s, `tflops` the float32 rate without
    tensor cores, `tensor` that of tensor cores on dense float16 summed in float32 (the maker's datasheets), `l2` bytes
    of the second-level cache. `source` names where they stand. `marks` are words of the name
    that CUDA gives the GPU: all of them, and it is this one.
    """

    name: str
    arch: int
    multiprocessors: int
    clock: float
    bandwidth: float
    tflops: float
    tensor: float
    l2: int
    source: str
    marks: tuple[str, ...]

    @property
    def multiprocessor(self) -> Multiprocessor:
        """Limits of its multiprocessors."""
        return MULTIPROCESSORS[self.arch]


_MIB = 2**20
DEVICES = (
    Device("T4", 75, 40, 1.59, 320, 8.1, 65, 4 * _MIB, "deviceQuery; sysrqmts.com, Tesla T4", ("T4",)),
    Device(
        "A100-40", 80, 108, 1.41, 1555, 19.5, 312, 40 * _MIB, "openxla/xla target_config a100_sxm_40", ("A100", "40GB")
    ),
    Device(
        "A100-80", 80, 108, 1.41, 2039, 19.5, 312, 40 * _MIB, "openxla/xla target_config a100_sxm_80", ("A100", "80GB")
    ),
    Device("A10", 86, 72, 1.695, 600, 31.2, 125, 6 * _MIB, "TechPowerUp c3793", ("A10",)),
    Device("RTX 3090", 86, 82, 1.695, 936, 35.6, 71, 6 * _MIB, "TechPowerUp c3622", ("RTX 3090",)),
    # That page says 60 multiprocessors, against its own 7,424 cores and 30.3 TFLOP/s: 58.
    Device("L4", 89, 58, 2.04, 300, 30.3, 121, 48 * _MIB, "TechPowerUp c4091", ("L4",)),
    Device(
        "RTX 4090", 89, 128, 2.52, 1008, 82.6, 165, 72 * _MIB, "NVIDIA/nvbench#207; TechPowerUp c3889", ("RTX 4090",)
    ),
    Device("H100 SXM", 90, 132, 1.98, 3350, 67, 989, 50 * _MIB, "openxla/xla target_config h100_sxm", ("H100", "HBM3")),
    Device("H200", 90, 132, 1.98, 4800, 67, 989, 50 * _MIB, "openxla/xla target_config h200", ("H200",)),
    # As CUDA reports it: the 8 TB/s and 75 TFLOP/s of the maker are rounded up.
    Device(
        "B200", 100, 148, 1.965, 7672, 74.4, 2250, 253 * _MIB // 2, "openxla/xla target_config b200; pytorch/ao#4002",
        ("B200",),
    ),
    Device(
        "RTX 5090", 120, 170, 2.407, 1792, 104.8, 209.5, 96 * _MIB, "NVIDIA/nccl#1637; TechPowerUp c4216",
        ("RTX 5090",),
    ),
)  # fmt: skip


# Of names that are another GPU's: less memory bandwidth, fewer multiprocessors, or a slice.
_OTHERS = {"Laptop", "D", "Ti", "PCIe", "PCIE", "NVL", "MIG", "Max", "Q"}


def find_device(name: str) -> Device:
    """The device of this name, ours or the one that CUDA gives it; LookupError where the table has none."""
    for device in DEVICES:
        if name == device.name:
            return device
    words = name.replace("-", " ").split()
    for device in DEVICES:
        marks = [word for mark in device.marks for word in mark.split()]
        if all(mark in words for mark in marks) and not _OTHERS.intersection(words):
            return device
    raise LookupError(f"no such device: {name}; there are {', '.join(device.name for device in DEVICES)}")
