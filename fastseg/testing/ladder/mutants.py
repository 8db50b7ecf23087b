"""Mutants of CUDA kernels, found in their text: one barrier, atomic, bound, vote, shuffle or rounding changed in each.

All of them are written into one text, where `fastseg_mutant` says which is alive: `csrc/testing/mutants.h`.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

# What C++ looks like outside comments, literals and what is known at compile time, where nothing can be chosen.
_ASIDE = re.compile(
    r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|^\s*#(?:\\\n|[^\n])*'
    r"|\b(?:static_assert|FASTSEG_SHARED|FASTSEG_DYNAMIC_SHARED|__launch_bounds__)\([^;]*?\)(?=;|\s)"
    r"|\bconstexpr\b[^;{]*[;{]",
    re.MULTILINE | re.DOTALL,
)
_STOPS = (" = ", " += ", " -= ", " *= ", " |= ", " &= ", " ? ", " : ", "return ")
_LOGICAL = (" && ", " || ")
_SIZES = re.compile(r" (?:<|<=|>|>=) ")


@dataclass(frozen=True)
class Mutant:
    """One change: where, what is done to which words, and the line that they stand in."""

    file: str
    line: int
    place: int
    operator: str
    words: str
    text: str


def keys(mutants: Sequence[Mutant]) -> dict[Mutant, str]:
    """Names that outlive shifts of lines; of mutants that say the same, the second has a 2, and so on."""
    names, times = {}, Counter[str]()
    for mutant in mutants:
        name = f"{mutant.operator} `{mutant.words}` in `{mutant.text}`"
        times[name] += 1
        names[mutant] = name if times[name] == 1 else f"{name} {times[name]}"
    return names


@dataclass(frozen=True)
class Site:
    """Text to replace: in `new`, `{}` is what stood there and `{k[0]}` the number of the first operator's mutant."""

    begin: int
    end: int
    operators: tuple[str, ...]
    new: str
    words: str = ""  # what the operators are done to, if more than what is replaced


def find_sites(text: str) -> list[Site]:
    """Every place of a kernel's text that has mutants."""
    plain = _ASIDE.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)
    return sorted((s for find in (_statements, _calls, _conditions, _terms, _compared) for s in find(plain)),
                  key=lambda site: (site.begin, -site.end))  # fmt: skip


def mutated(text: str, file: str, first: int) -> tuple[str, list[Mutant]]:
    """The text with all its mutants, which are numbered from `first` on."""
    mutants: list[Mutant] = []
    opened: dict[int, str] = {}
    closed: dict[int, str] = {}
    replaced: dict[int, int] = {}
    for site in find_sites(text):
        line = text.count("\n", 0, site.begin) + 1
        whole = text[text.rfind("\n", 0, site.begin) + 1 : text.find("\n", site.begin)].strip()
        words = " ".join((site.words or text[site.begin : site.end]).split()).rstrip("(")
        numbers = [first + len(mutants) + i for i in range(len(site.operators))]
        mutants += [Mutant(file, line, site.begin, operator, words, whole) for operator in site.operators]
        before, _, after = site.new.partition("{}")
        opened[site.begin] = opened.get(site.begin, "") + before.format(k=numbers)
        if "{}" in site.new:
            closed[site.end] = after.format(k=numbers) + closed.get(site.end, "")
        else:
            replaced[site.begin] = site.end
    parts, at = [], 0
    for place in sorted({*opened, *closed}):
        parts += [text[at:place], closed.get(place, ""), opened.get(place, "")]
        at = max(replaced.get(place, place), place)
    return "".join([*parts, text[at:]]), mutants


def _statements(text: str) -> Iterator[Site]:
    for found in re.finditer(r"__sync(?:threads|warp)\([^;]*\);", text):
        yield _dropped(found, "barrier dropped")
    for found in re.finditer(r"[\w.]+\[[^;=]*\] = (?:[^;=\n]+ = )?(?:0|T\(0\));", text):
        yield _dropped(found, "zeros dropped")


def _dropped(found: re.Match[str], operator: str) -> Site:
    return Site(found.start(), found.end(), (operator,), "{{ if (!FASTSEG_ALIVE({k[0]})) {} }}")


# Calls: name, what becomes of it, operators.
_CALLS = (
    (r"(atomic(?:Add|Max|Min|Or))\(", "FASTSEG_ATOMIC({k[0]}, {k[1]}, NAME, ", ("atomic made plain", "atomic dropped")),
    (
        r"(__(?:all|any)_sync)\(",
        "FASTSEG_VOTE({k[0]}, {k[1]}, NAME, ",
        ("vote of the own lane", "vote won"),
    ),
    (r"(__shfl_\w*sync)\(", "FASTSEG_SHUFFLE({k[0]}, NAME, ", ("shuffle dropped",)),
    (r"(smaller|larger)\(", "FASTSEG_EITHER({k[0]}, {k[1]}, NAME, ", ("limit dropped", "always the limit")),
    (r"(blend)\(", "FASTSEG_SWAPPED({k[0]}, NAME, ", ("weights swapped",)),
    (r"(__float2(?:bfloat16|half)_r)n\(", "FASTSEG_TRUNCATED({k[0]}, NAME, ", ("rounding to zero",)),
)


def _calls(text: str) -> Iterator[Site]:
    for pattern, new, operators in _CALLS:
        for found in re.finditer(r"(?<![\w.>:])" + pattern, text):
            before = re.search(r"(\w+) $", text[: found.start()])
            if not before or before[1] == "return":  # else it is a declaration
                yield Site(found.start(), found.end(), operators, new.replace("NAME", found[1]))


def _conditions(text: str) -> Iterator[Site]:
    """Bounds deleted: guards, and conditions of `if` and `?` that compare sizes. Other branches are not forced: where
    one is a shortcut it changes the time and not the result."""
    for begin, end in _heads(text, "if"):
        if re.match(r"\)\s*(?:continue|break|return)\b", text[end:]):
            yield Site(begin, end, ("guard deleted",), "(!FASTSEG_ALIVE({k[0]}) && ({}))")
        elif _SIZES.search(text, begin, end):
            yield _deleted(begin, end)
    for found in re.finditer(r"\s\? ", text):
        begin = _left(text, found.start(), _STOPS)
        if _SIZES.search(text, begin, found.start()):
            yield _deleted(begin, found.start())


def _deleted(begin: int, end: int) -> Site:
    return Site(begin, end, ("bound deleted",), "(FASTSEG_ALIVE({k[0]}) || ({}))")


def _terms(text: str) -> Iterator[Site]:
    """Each term of a conjunction or a disjunction, dropped."""
    spans: dict[tuple[int, int], str] = {}
    for found in re.finditer(r"\s(&&|\|\|)\s+", text):
        for span in (
            (_left(text, found.start(), _STOPS + _LOGICAL), found.start()),
            (found.end(), _right(text, found.end())),
        ):
            if spans.get(span) != "&&":
                spans[span] = found[1]
    for (begin, end), sign in spans.items():
        how = "(FASTSEG_ALIVE({k[0]}) || ({}))" if sign == "&&" else "(!FASTSEG_ALIVE({k[0]}) && ({}))"
        yield Site(begin, end, ("term dropped",), how)


def _compared(text: str) -> Iterator[Site]:
    """Comparisons shifted by one, and loops that end one earlier; not those of a limit, `a < b ? a : b`."""
    loops = [span for word in ("for", "while") for span in _heads(text, word)]
    for found in re.finditer(r" (<|<=|>|>=|==|!=) ", text):
        sign, end = found[1], _right(text, found.end())
        left, right = text[_left(text, found.start(), _STOPS + _LOGICAL) : found.start()], text[found.end() : end]
        sides = re.match(r"\s\? ([^?:;]+) : ([^?:;,]+)", text[end:])
        if sides and {left.strip(), right.strip()} == {sides[1].strip(), sides[2].strip().rstrip(")")}:
            continue
        new = f" {sign} ::fastseg::mutants::Compared<{{k[0]}}>() {sign} "
        yield Site(*found.span(), ("comparison shifted",), new, f"{left} {sign} {right}")
        if sign == "<" and any(begin <= found.start() < stop for begin, stop in loops):
            yield Site(found.end(), end, ("one less",), "({}) - FASTSEG_ALIVE({k[0]})")


def _heads(text: str, word: str) -> Iterator[tuple[int, int]]:
    """What stands in parentheses behind a keyword."""
    for found in re.finditer(rf"\b{word} \(", text):
        yield found.end(), _scan(text, found.end(), lambda c, at: c == ")")


def _right(text: str, at: int) -> int:
    """Where the operand that begins here ends."""
    return _scan(text, at, lambda c, i: c in ")]};," or re.match(r"\s(\?|:|&&|\|\|)\s", text[i:]) is not None)


def _scan(text: str, at: int, ends: Callable[[str, int], bool]) -> int:
    depth = 0
    while depth or not ends(text[at], at):
        depth += (text[at] in "([{") - (text[at] in ")]}")
        at += 1
    return at


def _left(text: str, at: int, stops: tuple[str, ...]) -> int:
    """Where the operand that ends here begins."""
    depth = 0
    while at:
        c = text[at - 1]
        if depth == 0 and (c in "([{;,}" or re.sub(r"\s", " ", text[max(at - 7, 0) : at]).endswith(stops)):
            break
        depth += (c in ")]}") - (c in "([{")
        at -= 1
    return at + len(text[at:]) - len(text[at:].lstrip())
