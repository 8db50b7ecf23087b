"""Mutants of Triton kernels, found in their syntax tree: one mask, comparison, bound or rounding changed in each.

Each is a folder of its own, from which the interpreter takes `fastseg.kernels`.
"""

import ast
import shutil
from collections.abc import Iterator
from pathlib import Path

from .mutants import Mutant

_SHIFTED = {ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "=="}
_MASK = {"load": 1, "store": 2}  # place of the mask among the arguments
_LARGE = 255  # constants beyond are bits of a rounding
Change = tuple[ast.AST, str, str]  # what is replaced, by what, operator


def find_mutants(text: str, file: str) -> list[tuple[Mutant, str]]:
    """Every mutant of a module, with its text."""
    lines = text.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line.encode()))
    whole, found = text.encode(), []
    functions = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef) and _is_kernel(node)]
    helpers = {function.name for function in functions}
    for function in functions:
        for statement in function.body:
            for node, new, operator in _changes(statement, helpers):
                begin = starts[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]
                end = starts[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]
                line = node.lineno  # type: ignore[attr-defined]
                words = " ".join(whole[begin:end].decode().split())
                mutant = Mutant(file, line, begin, operator, words, lines[line - 1].strip())
                found.append((mutant, (whole[:begin] + new.encode() + whole[end:]).decode()))
    return found


def function_at(text: str, line: int) -> str:
    """The name of the function that this line of a module belongs to."""
    functions = (node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef))
    return next(f.name for f in functions if f.lineno <= line <= (f.end_lineno or f.lineno))


def _is_kernel(function: ast.FunctionDef) -> bool:
    return any("triton.jit" in ast.unparse(decorator) for decorator in function.decorator_list)


def _changes(tree: ast.AST, helpers: set[str]) -> Iterator[Change]:
    for node in ast.walk(tree):
        match node:
            case ast.Compare(left=left, ops=[sign], comparators=[right]) if type(sign) in _SHIFTED:
                new = f"({ast.unparse(left)} {_SHIFTED[type(sign)]} {ast.unparse(right)})"
                yield node, new, "comparison shifted"
            case ast.BinOp(left=left, op=ast.BitAnd(), right=right) if not isinstance(right, ast.Constant):
                yield node, f"({ast.unparse(right)})", "term dropped"
                yield node, f"({ast.unparse(left)})", "last term dropped"
            case ast.If(test=test) | ast.IfExp(test=test) if isinstance(test, ast.Name):
                yield test, f"(not {ast.unparse(test)})", "the other variant"
            case ast.Constant(value=int(value)) if value > _LARGE:
                yield node, "0", "bits cleared"
            case ast.Expr(value=ast.Call(func=ast.Attribute(attr=name))) if "atomic" in name or "barrier" in name:
                yield node, "pass", f"{name} dropped"
            case ast.Call(func=ast.Name(id="range"), args=[begin, end]):
                first, last = ast.unparse(begin), ast.unparse(end)
                yield node, f"range({first}, {last} - 1)", "one less"
                yield node, f"range({first}, {last} + 1)", "one more"
                yield node, f"range({first} + 1, {last})", "one late"
            case ast.Call(func=ast.Name(id=name), args=[argument]) if name in helpers:
                yield node, ast.unparse(argument), "call dropped"
            case ast.Call(func=ast.Attribute(value=ast.Name(id="tl"), attr=name), args=arguments):
                yield from _of_tl(node, name, arguments)


def _of_tl(node: ast.Call, name: str, arguments: list[ast.expr]) -> Iterator[Change]:
    words = [ast.unparse(argument) for argument in arguments]
    if name in _MASK:
        named = [f"{k.arg}={ast.unparse(k.value)}" for k in node.keywords if k.arg not in ("mask", "other")]
        if len(words) > _MASK[name] or len(named) < len(node.keywords):
            yield node, f"tl.{name}({', '.join(words[: _MASK[name]] + named)})", "mask dropped"
        for other in (k.value for k in node.keywords if k.arg == "other"):
            yield other, f"({ast.unparse(other)}) + 1", "other value"
    elif name in ("where", "minimum", "maximum"):
        first, second = words[-2:]
        yield node, f"({first})", "always the first" if name == "where" else "limit dropped"
        yield node, f"({second})", "always the second" if name == "where" else "always the limit"
    elif name == "cdiv":
        yield node, f"(({words[0]}) // ({words[1]}))", "rounded down"


def write_folders(path: Path, file: str, tree: Path) -> list[Mutant]:
    """`tree/<number>`: the kernels with one mutant each; 0 without any."""
    found = find_mutants(path.read_text(), file)
    shutil.rmtree(tree, ignore_errors=True)
    for number, text in enumerate([path.read_text(), *(text for _, text in found)]):
        shutil.copytree(path.parent, tree / str(number), ignore=shutil.ignore_patterns("__pycache__"))
        (tree / str(number) / path.name).write_text(text)
    return [mutant for mutant, _ in found]
