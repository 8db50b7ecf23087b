"""`fastseg segment`: label maps and pictures of a user's own photos."""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from fastseg.cli.errors import UserError, reason
from fastseg.data.formats.images import MAX_PIXELS, SUFFIXES, ImageError, read_image, write_image, write_labels
from fastseg.ops.dense_crf_presets import DEFAULT, PRESETS

if TYPE_CHECKING:
    import numpy as np
    from rich.table import Table


class WithPreset(TyperCommand):
    """A command whose option `--crf` has a value of its own where none of the presets follows it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give `--crf` its value."""
        filled = []
        for arg, following in zip_longest(args, args[1:]):
            filled.append(arg)
            if arg == "--crf" and following not in PRESETS and not _is_name(following):
                filled.append(DEFAULT)
        return super().parse_args(ctx, filled)


def _is_name(arg: str | None) -> bool:
    """Whether an argument can only be meant as a name: it is no option, no path, and no file that is or is named like
    one."""
    path = Path(arg or ".")
    return path.name == arg and not (arg.startswith("-") or path.suffix or path.exists())


@dataclass(frozen=True)
class Job:
    """One photo and the files that it becomes, by kind."""

    source: Path
    outputs: dict[str, Path]


def segment(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Photos, or folders of photos.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results; made where it is missing.")],
    labels: Annotated[bool, typer.Option("--labels", help="Write STEM.png: class indices (the default).")] = False,
    overlay: Annotated[bool, typer.Option("--overlay", help="Write STEM_overlay.jpg: classes in colour.")] = False,
    blur: Annotated[bool, typer.Option("--blur-background", help="Write STEM_blurred.jpg: portrait mode.")] = False,
    model: Annotated[str | None, typer.Option(help="Model or shipped weights by name.")] = None,
    weights: Annotated[str | None, typer.Option(help="Weights file, or shipped weights by name.")] = None,
    crf: Annotated[
        str | None,
        typer.Option(metavar="[PRESET]", help=f"Refine the labels along edges: {', '.join(PRESETS)} ({DEFAULT})."),
    ] = None,
    max_pixels: Annotated[int, typer.Option(min=1, help="Refuse larger images before decoding them.")] = MAX_PIXELS,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Segment photos. A photo that fails is named on stderr, the others are still done, and the exit code is 2."""
    from fastseg.cli.network import load_network

    kinds = [k for k, on in {"labels": labels, "overlay": overlay, "blurred": blur}.items() if on] or ["labels"]
    _, network = load_network(model, weights)
    if crf not in (None, *PRESETS):
        raise UserError(f"--crf {crf}: must be one of {', '.join(PRESETS)}")
    refine = None if crf is None else dict(PRESETS[crf])
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: cannot be made a folder ({reason(error)})") from error

    failures: list[str] = []

    def fail(path: Path, why: str) -> None:
        failures.append(str(path))
        typer.echo(f"error: {path}: {why}", err=True)

    jobs = list(plan(images, out, kinds, fail))
    rows = []
    for job in _progress(jobs):
        try:
            rows.append(_run(network, job, max_pixels, refine))
        except ImageError as error:
            fail(error.path, error.reason)
        except OSError as error:
            fail(Path(error.filename or job.source), reason(error))
        except (MemoryError, RuntimeError) as error:
            if "memory" not in str(error) and not isinstance(error, MemoryError):
                raise
            fail(job.source, "does not fit into memory")
    if as_json:
        typer.echo(json.dumps({"images": rows, "failed": failures, "crf": crf}))
    elif rows:
        from rich.console import Console

        Console().print(_table(rows, out, crf))
    if failures:
        raise typer.Exit(2)


def plan(images: list[Path], out: Path, kinds: list[str], fail: Callable[[Path, str], None]) -> Iterator[Job]:
    """List what to do, leaving out what would overwrite a given photo or another photo's result.

    Args:
        images: files, or folders that are read one level deep in order of name.
        out: folder for the results.
        kinds: `labels`, `overlay` or `blurred`.
        fail: is told of every photo left out, and why.
    """
    # A photo named twice, by itself and by its folder say, is one photo.
    given = {source.resolve(): source for source in _files(images, fail)}
    taken: dict[Path, Path] = {}
    for source in given.values():
        names = {k: f"{source.stem}.png" if k == "labels" else f"{source.stem}_{k}.jpg" for k in kinds}
        outputs = {kind: out / name for kind, name in names.items()}
        for path in outputs.values():
            if path.resolve() in given:
                fail(source, f"its result {path} would overwrite a given photo; choose another folder with -o")
                break
            if path in taken:
                fail(source, f"its result {path} is already that of {taken[path]}; give it another folder with -o")
                break
        else:
            taken.update(dict.fromkeys(outputs.values(), source))
            yield Job(source, outputs)


def _files(images: list[Path], fail: Callable[[Path, str], None]) -> Iterator[Path]:
    for path in images:
        if not path.is_dir():
            yield path
            continue
        try:
            found = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and not p.is_dir())
        except OSError as error:
            fail(path, reason(error))
            continue
        if not found:
            fail(path, "holds no images")
        yield from found


def _run(network: Any, job: Job, max_pixels: int, crf: dict[str, Any] | None) -> dict[str, Any]:
    """Segment one photo, write its results, and say what was found."""
    import torch

    from fastseg.cli import pictures

    start = time.perf_counter()
    image = read_image(job.source, max_pixels=max_pixels)
    labels = network.predict(torch.from_numpy(image), crf).numpy()
    elapsed = time.perf_counter() - start
    colours = pictures.palette(network.classifier.out_channels)
    for kind, path in job.outputs.items():
        if kind == "labels":
            write_labels(path, labels, colours)
        elif kind == "overlay":
            write_image(path, pictures.overlay(image, labels, colours))
        else:
            write_image(path, pictures.blur_background(image, labels))
    return {
        "file": str(job.source),
        "width": image.shape[1],
        "height": image.shape[0],
        "ms": 1e3 * elapsed,
        "classes": _shares(labels, class_names(network)),
        "outputs": {kind: str(path) for kind, path in job.outputs.items()},
    }


def class_names(network: Any) -> tuple[str, ...]:
    """Names of a network's classes; numbered where it has none."""
    return network.classes or tuple(f"class {i}" for i in range(network.classifier.out_channels))


def _shares(labels: "np.ndarray", names: tuple[str, ...]) -> dict[str, float]:
    """Share of the pixels of every class that was found, largest first."""
    import numpy as np

    counts = np.bincount(labels.ravel(), minlength=len(names))
    order = [i for i in np.argsort(-counts, kind="stable") if counts[i]]
    return {names[i]: counts[i] / labels.size for i in order}


def _progress(jobs: list[Job]) -> Iterable[Job]:
    """Show a bar on stderr while more than one photo is worked on."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    quiet = len(jobs) < 2 or not console.is_terminal
    return track(jobs, "Segmenting", console=console, transient=True, disable=quiet)


def _table(rows: list[dict[str, Any]], out: Path, crf: str | None) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    refined = f", edges by the CRF of {crf}" if crf else ""
    table = Table(
        box=SIMPLE_HEAD,
        caption=Text(f"results in {out}{refined}; the first photo of a size pays for setting up the network"),
        caption_justify="left",
    )
    table.add_column("photo", overflow="fold")
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("ms", justify="right")
    table.add_column("classes", ratio=1)
    for row in rows:
        found = ", ".join(f"{name} {share:.0%}" for name, share in row["classes"].items() if share >= 5e-3)
        table.add_row(
            Text(Path(row["file"]).name), f"{row['width']} x {row['height']}", f"{row['ms']:.0f}", Text(found)
        )
    return table
