"""A battery that cannot fail proves nothing: flip one thing in the kernels at a time and see the rows go red.

All mutants are compiled into one library; a global variable says which of them is alive.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastseg import _native

ROOT = Path(__file__).parents[2]
COLUMNS, PROGRESSION, ARGMAX, SOFTMAX, ADJOINT, PLANES, PAIRS, POOLS = (
    "upsample/columns.h",
    "upsample/progression.h",
    "upsample/argmax_kernel.cpp",
    "upsample/softmax_kernel.cpp",
    "upsample/adjoint_kernel.cpp",
    "upsample/planes_kernel.cpp",
    "confusion/cpu_kernel.cpp",
    "pyramid_pool/cpu_kernel.cpp",
)
SPECTRUM, MIX, GLOBAL, GLOBAL_BACKWARD = (
    "global_conv/spectrum_kernel.cpp",
    "global_conv/mix_kernel.cpp",
    "global_conv/arguments.h",
    "global_conv/backward_cpu.cpp",
)
PLAN, GATHER, REGROUP, FUSE = (
    "ksac/plan.h",
    "ksac/gather_kernel.cpp",
    "ksac/regroup_kernel.cpp",
    "ksac/fuse_kernel.cpp",
)
TILES, DEPTHWISE, MAPS, ASPP = (
    "atrous_conv/tiles_kernel.cpp",
    "atrous_conv/depthwise_kernel.cpp",
    "conv/maps_kernel.cpp",
    "aspp/cpu.cpp",
)
LATTICE, FILTER, GAUSSIAN, DIGITS, BUILD, ON_LATTICE, DIAGONAL, STATE = (
    "dense_crf/lattice_kernel.cpp",
    "dense_crf/filter_kernel.cpp",
    "dense_crf/gaussian_kernel.cpp",
    "dense_crf/lattice.h",
    "dense_crf/build.h",
    "dense_crf/lattice_filter.h",
    "dense_crf/diagonal.h",
    "dense_crf/state_cpu.cpp",
)
MAP, TERMS, SMOOTHNESS, UPDATE, FIELD, EXACT = (
    "dense_crf/map.h",
    "dense_crf/terms.h",
    "dense_crf/smoothness.h",
    "dense_crf/mean_field_kernel.cpp",
    "dense_crf/field.h",
    "dense_crf/pairwise_kernel.cpp",
)
BLOCK, WALK, SUMS, SUMS_ADJOINT, PIXEL, SORT, MEAN = (
    "upsample/block.h",
    "upsample/adjoint.h",
    "region_loss/statistics_kernel.cpp",
    "region_loss/statistics_adjoint_kernel.cpp",
    "region_loss/terms.h",
    "region_loss/lovasz_kernel.cpp",
    "region_loss/lovasz_cpu.cpp",
)
LINES, INSTANCES, OUTLINES, SURFACES, POINTS, CURVE = (
    "distance/lines_kernel.cpp",
    "distance/instances_kernel.cpp",
    "distance/surface_kernel.cpp",
    "distance/surface_cpu.cpp",
    "distance/points_kernel.cpp",
    "distance/points_cpu.cpp",
)
# File, expression, what it becomes.
MUTANTS = (
    (
        COLUMNS,
        "blend<T>(a, k.lower_weight, b, k.upper_weight)",
        "blend<T>(a, k.upper_weight, b, k.lower_weight)",
    ),
    (COLUMNS, "y.upper[begin]", "row"),
    (COLUMNS, "y.first[row + 1]", "y.first[row + 1] - 1"),
    (PROGRESSION, "first * squared", "first * ratio"),
    (PROGRESSION, "w[n - 1] - w[0]", "w[n - 1] - w[1]"),
    (PROGRESSION, "lowest < T(-kExponents)", "lowest < T(-1e9)"),
    (PLANES, "a * wa[j] + b * wb[j]", "a * wb[j] + b * wa[j]"),
    (ARGMAX, "v > best[j]", "v >= best[j]"),
    (ARGMAX, "v > best[j]", "v < best[j]"),
    (ARGMAX, "a == b && a == c && a == d", "a == b && a == c"),
    (ARGMAX, "~finite", "finite & ~finite"),
    (ARGMAX, "column(c, high) >= floor", "column(c, low) >= floor"),
    (SOFTMAX, "logarithm(sum)", "-logarithm(sum)"),
    (SOFTMAX, "block.template sum<true>(block.row(y))", "block.template sum<true>(block.row(y)) * T(0.5)"),
    (SOFTMAX, "exponential(best - reference)", "exponential(reference - best)"),
    (SOFTMAX, "~(v <= best) & (best == best)", "~(v < best) & (best == best)"),
    (SOFTMAX, "(chosen - reference)", "chosen"),
    (SOFTMAX, "loss * (1 - p.smoothing)", "loss * (1 + p.smoothing)"),
    (WALK, "g * y.lower_weight[row]", "g * y.upper_weight[row]"),
    (WALK, "v * x.lower_weight[at]", "v * x.upper_weight[at]"),
    (ADJOINT, "exponential(-load(reference + at))", "exponential(load(reference + at))"),
    (ADJOINT, "top.fits[x / L] && bottom.fits[x / L]", "top.fits[x / L]"),
    (ADJOINT, "u * gb[k]", "u * ga[k]"),
    (ADJOINT, "g[i] * (p.smoothing / T(p.c))", "g[i] * (p.smoothing / T(p.c + 1))"),
    (ADJOINT, "(hit ? load(B + at) : V<T>{})", "(hit ? V<T>{} : load(B + at))"),
    (
        PAIRS,
        "uint32_t(t) * uint32_t(classes) + uint32_t(q)",
        "uint32_t(q) * uint32_t(classes) + uint32_t(t)",
    ),
    (PAIRS, "t != ignored", "t != ignored + 1"),
    (POOLS, "in[i] != in[i]", "in[i] > in[i]"),
    (POOLS, "in[i] > value[i]", "in[i] >= value[i]"),
    (POOLS, "(v == value) & (at < place)", "(v == value) & (at > place)"),
    (POOLS, "(value == value) | (at > place)", "(value == value) | (at < place)"),
    (POOLS, "bin.left + (r == bin.top)", "bin.left"),
    (POOLS, "Place<T>(y * width)", "Place<T>(y)"),
    (POOLS, "position * apart + k", "position * apart"),
    (SPECTRUM, "-load(a + l)", "load(a + l)"),
    (SPECTRUM, "p.used", "size"),
    (SPECTRUM, "v[i + L / 2]", "v[i]"),
    (SPECTRUM, "re.a + both.a", "re.a - both.a"),
    (MIX, "p.h - y <= p.reach_y", "p.h - y < p.reach_y"),
    (MIX, "p.reach_y - y", "p.reach_y - y + 1"),
    (GLOBAL, "whole ? 0 : -reach", "whole ? 0 : -reach + 1"),
    (GLOBAL_BACKWARD, "-stage.reach - windows.start", "stage.reach - windows.start"),
    (GLOBAL_BACKWARD, "from + t * step", "from"),
    (PLAN, "begin >= reach ? 3 : 2", "2"),
    (PLAN, "std::max(rows.first, least_)", "rows.first + least_ + 1"),
    (GATHER, "g.sum && k > 0", "g.sum && k > 1"),
    (GATHER, "kept * (strip.end - strip.begin) + x", "kept * (strip.end - strip.begin) + x / 2"),
    (GATHER, "(t % 3 - 1) * p.rates[k]", "(1 - t % 3) * p.rates[k]"),
    (GATHER, "(t / 3 - 1) * p.rates[k]", "(1 - t / 3) * p.rates[k]"),
    (REGROUP, "(c + i) * r.plane + first + j", "(c + i) * r.plane + first + i"),
    (FUSE, "(z <= T(0)) | (z >= T(6))", "z <= T(0)"),
    (FUSE, "z * (T(1) - s)", "z * (T(1) + s)"),
    (FUSE, "at * kRun", "at * (kRun - 1)"),
    (TILES, "v[j * step]", "v[j]"),
    (TILES, "x < p.columns.in", "x < p.columns.in - 1"),
    (TILES, "(a + use.first_tap)", "a"),
    (TILES, "a.out - first + a.dilation - 1", "a.out - first"),
    (TILES, "p.not_finite + tile.image", "p.not_finite"),
    (TILES, "value * 0.0f", "V<float>{}"),
    (DEPTHWISE, "left == most", "left == most && most < kMost"),
    (DEPTHWISE, "a.in - 1 - start", "a.in - 2 - start"),
    (DEPTHWISE, "left - L", "left - L - 1"),
    (DEPTHWISE, "p.columns.dilation * p.block()", "p.block()"),
    (DEPTHWISE, "image * p.c + channel", "channel"),
    (MAPS, "(r + i) * columns + c + j", "(r + j) * columns + c + i"),
    (MAPS, "row % p.channels", "0"),
    (ASPP, "i * b", "0"),
    (LATTICE, "sorted[d - k] - sorted[S - k]", "sorted[S - k] - sorted[d - k]"),
    (LATTICE, "y[i] < y[j]", "y[i] <= y[j]"),
    (LATTICE, "1 - p.digits.place[axis[S - k]]", "1 - p.digits.place[axis[d - k]]"),
    (LATTICE, "(low ? side : none) - (high ? side : none)", "(low ? side : none)"),
    (FILTER, "T(0.5)", "T(0.25)"),
    (FILTER, "_mm_storeu_ps(out + 2 * step, c)", "_mm_storeu_ps(out + 2 * step, d)"),
    (FILTER, "out[l * step + k] = in[k * apart + l]", "out[l * step + k] = in[k * apart]"),
    (FILTER, "shares[at + 1]", "shares[at]"),
    (DIGITS, "key % sides == sides - 1", "key % sides == sides"),
    (DIGITS, "int16_t(next[r + 1] + next[r])", "next[r + 1]"),
    (ON_LATTICE, "lattice_.sides - 1 - i", "i"),
    (ON_LATTICE, "norm.before && norm.after", "norm.before || norm.after"),
    (BUILD, "starts[vertex[r] + 1]++", "starts[vertex[r] + 1]"),
    (BUILD, "beside[2 * int64_t(v)] < vertices", "beside[2 * int64_t(v)] < 0"),
    (BUILD, "before[first + point[at]]", "before[first]"),
    (DIAGONAL, "there[axis] + (a < b ? -1 : 1)", "there[axis]"),
    (DIAGONAL, "share_of(lattice, corners[a], back, corners[b])", "0.0"),
    (STATE, "row[first[tile] + corners[k]]", "row[corners[k]]"),
    (MAP, "double(x + j) / sigma[0]", "double(x) / sigma[0]"),
    (MAP, "x > most", "x >= most"),
    (TERMS, "sum[i] - diagonal[i] > T(kAlone) * sum[i]", "true"),
    (TERMS, "norm.before && norm.after", "norm.before || norm.after"),
    (SMOOTHNESS, "up_to[i] + up_to[n - 1 - i] - 1", "up_to[i] + up_to[n - 1 - i]"),
    (SMOOTHNESS, "x < reach || end + reach > wide", "x < reach"),
    (SMOOTHNESS, "z * plane", "plane"),
    (UPDATE, "sum.part[v] + table.part[v] * one.part[v]", "sum.part[v] - table.part[v] * one.part[v]"),
    (UPDATE, "taps.weights + (k - i)", "taps.weights + (k - i) / 2"),
    (UPDATE, "(m * p.chunks + chunk) * C", "(m * p.chunks) * C"),
    (UPDATE, "p.kept ? p.kept[i] : T(1)", "T(1)"),
    (UPDATE, "p.kept ? p.kept[i + k] : T(1)", "T(1)"),
    (FIELD, "(iteration + 1) % sides * size", "iteration % sides * size"),
    (EXACT, "T(-0.5) * weights[k]", "T(-0.25) * weights[k]"),
    (EXACT, "weights[k] * p.before[j + k]", "weights[k]"),
    (EXACT, "f[j + k] - mine", "mine - f[j + k]"),
    (GAUSSIAN, "i < y ? y - i : i - y", "i < y ? y - i : y"),
    (GAUSSIAN, "row + v * L - k", "row + v * L - k + 1"),
    (GAUSSIAN, "y + p.rows.reach + 1", "y + p.rows.reach"),
    (BLOCK, "exponential(load(value + i) - reference)", "exponential(reference - load(value + i))"),
    (SUMS, "whole[i] += part[i]", "whole[i] = part[i]"),
    (SUMS, "T(1) - probability", "probability"),
    (SUMS, "logarithm(sum[j]) - logarithm(term)", "logarithm(sum[j])"),
    (SUMS, "logarithm(total) - value", "logarithm(total)"),
    (SUMS, "own[j] != Scalar(kIgnored)", "own[j] == own[j]"),
    (SUMS, "hit ? of.q : of.p", "hit ? of.p : of.q"),
    (SUMS, "mine != Scalar(kIgnored)", "mine == mine"),
    (PIXEL, "positive ? log : log - z", "log"),
    (PIXEL, "gamma * weight * log * own / other - weight", "gamma * weight * log * own / other"),
    (PIXEL, "label - Scalar(first)", "label"),
    (SUMS_ADJOINT, "counted ? m + h : V<T>{}", "counted ? m : V<T>{}"),
    (SUMS_ADJOINT, "(load(b + x) - load(a + x)) * runs[r].step", "load(b + x) - load(a + x)"),
    (SUMS_ADJOINT, "long_runs && top.fits[x / L] && bottom.fits[x / L]", "long_runs && top.fits[x / L]"),
    (SUMS_ADJOINT, "squares * factor * factor", "squares * factor"),
    (SUMS_ADJOINT, "hit ? of.q : -of.p", "hit ? of.q : of.p"),
    (SUMS_ADJOINT, "load_lanes<T>(own + at) == Scalar(c)", "load_lanes<T>(own + at) != Scalar(c)"),
    (SORT, "error == error ? kMost - bits : 0", "error == error ? bits : 0"),
    (SORT, "to[place[digit(from[i].key, pass)]++] = from[i]", "to[i] = from[i]"),
    (SORT, "(own[i] != kIgnored)", "(own[i] != kIgnored - 1)"),
    (SORT, "before * joined", "before * before"),
    (SORT, "least(n, 1)", "n"),
    (SORT, "inside ? -step * share : step * share", "inside ? step * share : step * share"),
    (SORT, "load(slope + at) - load(mean + x)", "load(slope + at) + load(mean + x)"),
    (MEAN, "present ? c : classes", "classes"),
    (MEAN, "1.0 / double(all) / double(segments)", "1.0 / double(all)"),
    (LINES, "label_lanes<T>(label + i * kStrip) == own ? v : F{}", "v"),
    (LINES, "seen(q + d)", "seen(q - d)"),
    (LINES, "best > offset[d]", "best > offset[d] * 4"),
    (LINES, "(v == best) & (s < chosen)", "(v == best) & (s > chosen)"),
    (LINES, "(h - height_[size_ - 1]) / double(place - v)", "(h - height_[size_ - 1])"),
    (LINES, "start_[k + 1] < double(q)", "start_[k + 1] < double(q - 1)"),
    (LINES, "(n + 1) / 2", "n / 2"),
    (LINES, "first_byte(found)", "int64_t(7)"),
    (INSTANCES, "~same & nearer", "nearer"),
    (INSTANCES, "(distance < second)", "(distance < first)"),
    (INSTANCES, "id_before = id, place_before = place", "place_before = place"),
    (OUTLINES, "c[x + columns]", "c[x - columns]"),
    (OUTLINES, "c[x + around]", "c[x - around]"),
    (OUTLINES, "a[x] << 3 | a[x + 1] << 2", "a[x] << 2 | a[x + 1] << 3"),
    (OUTLINES, "p.values[i] <= p.trusted", "true"),
    (SURFACES, "job_.measure.offset(1, limit)", "4 * job_.measure.offset(1, limit)"),
    (SURFACES, "job_.weights[s.code[i]]", "job_.weights[s.code[i] / 2]"),
    (POINTS, "order[l] < nearest", "order[l] > nearest"),
    (POINTS, "further <= best", "further <= best / 16"),
    (POINTS, "i > found->query", "i < found->query"),
    (CURVE, "std::max(left[dims_], right[dims_])", "left[dims_]"),
)
RUNNER = """
import ctypes, json, sys, torch
from fastseg import _native, testing
from fastseg.testing.case import stem_of
assert _native.LIBRARY.parts[:-3] == __import__("pathlib").Path(sys.argv[1]).parts, _native.LIBRARY
torch.set_num_threads(1)
alive = ctypes.c_int.in_dll(ctypes.CDLL(str(_native.LIBRARY)), "fastseg_mutant")
rows = testing.find_cases(None, "smoke", "odd", "degenerate")

def red(stem):
    for layout in testing.LAYOUTS[:2]:
        for case in sorted(rows, key=lambda case: stem_of(case.op) != stem):  # its own first
            try:
                testing.judge(case, case.dtypes[0], testing.run(case, case.dtypes[0], layout))
            except (AssertionError, RuntimeError) as error:
                return str(error)
    return ""

with testing.use_isa("base"):
    verdicts = []
    for alive.value, stem in enumerate(["", *sys.argv[2:]]):
        verdicts.append(red(stem))
print(json.dumps(verdicts))
"""


def mutated(tree: Path) -> None:
    """Copy the sources and write every mutant into them."""
    shutil.copytree(ROOT / "csrc", tree / "csrc")
    shutil.copy(ROOT / "CMakeLists.txt", tree)
    shutil.copytree(ROOT / "fastseg", tree / "fastseg", ignore=shutil.ignore_patterns("*.so", "weights", "__pycache__"))
    sites: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for number, (file, old, new) in enumerate(MUTANTS, 1):
        sites.setdefault((file, old), []).append((number, new))
    for (file, old), variants in sites.items():
        text = (tree / "csrc" / file).read_text()
        assert old in text, f"{file} has no {old!r}: give the mutant another place"
        replaced = f"({old})"
        for number, new in variants:
            replaced = f"(fastseg_mutant == {number} ? ({new}) : {replaced})"
        (tree / "csrc" / file).write_text(text.replace(old, replaced))
    for name in ("dtypes.h", "isa.h"):  # one of which every kernel has
        header = tree / "csrc/common" / name
        declared = '#pragma once\nextern "C" int fastseg_mutant;\n'
        header.write_text(header.read_text().replace("#pragma once\n", declared, 1))
    with (tree / "csrc/common/isa.cpp").open("a") as file:
        file.write('extern "C" { __attribute__((visibility("default"))) int fastseg_mutant = 0; }\n')


def build(tree: Path) -> None:
    """Compile without optimising: only small rows will run."""
    torch_root = Path(torch.__file__).parent
    options = {
        "CMAKE_BUILD_TYPE": "Debug",
        "FASTSEG_OUTPUT": tree / "fastseg",
        "FASTSEG_TORCH_INCLUDE": torch_root / "include",
        "FASTSEG_TORCH_LIB": torch_root / "lib",
        "FASTSEG_PYTHON": sys.executable,
    }
    defines = [f"-D{name}={value}" for name, value in options.items()]
    environment = dict(os.environ, PATH=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    configure = ["cmake", "-S", str(tree), "-B", str(tree / "build"), "-G", "Ninja", *defines]
    for command in (configure, ["cmake", "--build", str(tree / "build"), "--target", "fastseg_cpu"]):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.skipif(not _native.loaded, reason="kernels are mutated: " + _native.why_not)
def test_every_mutant_is_killed(tmp_path: Path) -> None:
    mutated(tmp_path)
    build(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, str(tmp_path), *(file.split("/")[0] for file, _, _ in MUTANTS)],
        env=dict(os.environ, PYTHONPATH=str(tmp_path)),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    unchanged, *red = json.loads(done.stdout.splitlines()[-1])
    assert not unchanged, f"red without any mutant: {unchanged}"
    survivors = [f"{file}: {old} -> {new}" for (file, old, new), k in zip(MUTANTS, red, strict=True) if not k]
    assert not survivors, "\n".join(survivors)
