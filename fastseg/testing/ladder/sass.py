"""What the machine code of a kernel says of it, read from cuobjdump."""

import re
import subprocess
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .devices import MULTIPROCESSORS
from .toolchain import find

_USAGE = re.compile(r"^ Function (\S+):\s*\n.*?REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", re.MULTILINE)
_FUNCTION = re.compile(r"^\s*Function : (\S+)$", re.MULTILINE)
_INSTRUCTION = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)\s*(.*?);", re.MULTILINE)
_TARGET = re.compile(r"0x([0-9a-f]+)\s*$")
# Floating-point operations of one instruction in each lane; packed ones do two numbers.
_FLOPS = {
    **dict.fromkeys(("FADD", "FMUL", "FMNMX", "FMNMX3", "FSETP", "FSET", "FSEL", "MUFU"), 1),
    **dict.fromkeys(("DADD", "DMUL", "DSETP"), 1),
    **dict.fromkeys(("FFMA", "DFMA", "HADD2", "HMUL2", "FADD2", "FMUL2"), 2),
    **dict.fromkeys(("HFMA2", "FFMA2"), 4),
}
_TENSOR = re.compile(r"(?:[HIDBQO]MMA|[HIQB]GMMA|UTC\w*MMA)")
_WIDTHS = {"256": 256, "128": 128, "64": 64, "U16": 16, "S16": 16, "U8": 8, "S8": 8}


@dataclass(frozen=True)
class Code:
    """One kernel's machine code.

    `shared` and `local` are bytes (static shared memory; stack and local memory), `spills` instructions that touch
    local memory. `loads` and `stores` count instructions on global memory by their width in bits; copies from global to
    shared memory are loads. `loop_flops` are the floating-point operations among the `loop_instructions` of the
    innermost loop that has most of them, each taken once; of the whole kernel where it has no loop.
    """

    symbol: str
    registers: int
    shared: int
    local: int
    instructions: int
    loop_instructions: int
    loop_flops: int
    spills: int
    barriers: int
    atomics: int
    tensor_cores: int
    loads: dict[int, int]
    stores: dict[int, int]


def read(cubin: Path, arch: int) -> list[Code]:
    """Every kernel of a cubin."""
    # From sm_90 on what the driver takes of a block's shared memory is counted in, and occupancy counts it once more.
    driver = MULTIPROCESSORS[arch].reserved if arch >= 90 else 0
    usage = {symbol: tuple(map(int, numbers)) for symbol, *numbers in _USAGE.findall(_dump(cubin, "-res-usage"))}
    parts = _FUNCTION.split(_dump(cubin, "-sass"))
    listing = dict(zip(parts[1::2], parts[2::2], strict=True))
    kernels = []
    for symbol, (registers, stack, shared, local) in usage.items():
        lines = [line for line in _INSTRUCTION.findall(listing[symbol]) if line[1] != "NOP"]
        opcodes = [opcode for _, opcode, _ in lines]
        count = Counter(opcode.split(".")[0] for opcode in opcodes)
        loop = _busiest_loop(lines)
        kernels.append(
            Code(
                symbol,
                registers=registers,
                shared=max(0, shared - driver),
                local=stack + local,
                instructions=len(opcodes),
                loop_instructions=len(loop),
                loop_flops=_flops(loop),
                spills=count["LDL"] + count["STL"],
                barriers=count["BAR"],
                atomics=sum(n for name, n in count.items() if name.startswith(("ATOM", "RED")) and name != "REDUX"),
                tensor_cores=sum(n for name, n in count.items() if _TENSOR.fullmatch(name)),
                loads=_widths(opcodes, ("LDG", "LD", "LDGSTS")),
                stores=_widths(opcodes, ("STG", "ST")),
            )
        )
    return kernels


def _busiest_loop(lines: list[tuple[str, str, str]]) -> list[str]:
    """Opcodes of the innermost loop with the most floating-point operations."""
    ends = [
        (int(t[1], 16), int(at, 16))
        for at, opcode, rest in lines
        if opcode.startswith("BRA") and (t := _TARGET.search(rest))
    ]
    loops = [(begin, end) for begin, end in ends if begin < end]  # a branch to itself is what stands behind the end
    inner = [one for one in loops if not any(o != one and one[0] <= o[0] and o[1] <= one[1] for o in loops)]
    bodies = [[opcode for at, opcode, _ in lines if begin <= int(at, 16) <= end] for begin, end in inner]
    return max([*bodies, []], key=_flops) or [opcode for _, opcode, _ in lines]


def _flops(opcodes: Iterable[str]) -> int:
    return sum(_FLOPS.get(opcode.split(".")[0], 0) for opcode in opcodes)


def _dump(cubin: Path, what: str) -> str:
    return subprocess.run([find("cuobjdump"), what, str(cubin)], capture_output=True, text=True, check=True).stdout


def _widths(opcodes: Iterable[str], names: tuple[str, ...]) -> dict[int, int]:
    """How many of these instructions move how many bits, the widest first."""
    found: Counter[int] = Counter()
    for opcode in opcodes:
        name, *modifiers = opcode.split(".")
        if name in names:
            found[next((_WIDTHS[modifier] for modifier in modifiers if modifier in _WIDTHS), 32)] += 1
    return dict(sorted(found.items(), reverse=True))


_TYPES = {
    "unsigned char": "uint8",
    "signed char": "int8",
    "unsigned short": "uint16",
    "short": "int16",
    "unsigned int": "uint32",
    "unsigned long": "uint64",
    "unsigned long long": "uint64",
    "long long": "int64",
    "long": "int64",
    "int": "int32",
    "float": "float32",
    "double": "float64",
    "__half": "float16",
    "__nv_bfloat16": "bfloat16",
}


def names(symbols: Iterable[str], stem: str) -> list[str]:
    """Short names of CUDA kernels: `_Z...` is `upsample/argmax<float32,uint8>`."""
    listed = list(symbols)
    told = subprocess.run([find("c++filt")], input="\n".join(listed), capture_output=True, text=True, check=True)
    return [f"{stem}/{short_name(line)}" for line in told.stdout.splitlines()]


def short_name(signature: str) -> str:
    """A demangled signature without namespaces, parameters and return type; dtypes are spelled as torch does."""
    text = re.sub(r"\(anonymous namespace\)::", "", signature)
    text = re.sub(r"\([a-z][\w: ]*\)(?=-?\d)", "", text)  # the type of a number among the template's arguments
    text = text[: _at_depth_0(text, "(")].removeprefix("void ")
    open_ = _at_depth_0(text, "<")
    name = text[:open_].rsplit("::", 1)[-1].removesuffix("_kernel")
    inner = re.sub(r"\b\w+::", "", text[open_:]).replace(", ", ",")
    return name + re.sub(r"[\w ]*\w", lambda word: _TYPES.get(word[0].strip(), word[0]), inner).replace(" ", "")


def _at_depth_0(text: str, wanted: str) -> int:
    """Where a character first stands outside angle brackets; the end where it does not."""
    depth = 0
    for place, letter in enumerate(text):
        if letter == wanted and depth == 0:
            return place
        depth += (letter == "<") - (letter == ">")
    return len(text)
