"""The `fastseg` command and its verbs."""

import sys
import warnings
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from fastseg.cli.bench import bench
from fastseg.cli.demo import demo
from fastseg.cli.doctor import doctor
from fastseg.cli.errors import reason
from fastseg.cli.eval import evaluate
from fastseg.cli.gpu_report import gpu_report
from fastseg.cli.profile import profile
from fastseg.cli.segment import WithPreset, segment
from fastseg.cli.selftest import selftest
from fastseg.cli.train import train


class OneLineErrors(TyperGroup):
    """Says what the user did wrong in one line on stderr, exit code 2; a defect of ours keeps its traceback."""

    def main(self, *args: Any, **options: Any) -> Any:
        options["standalone_mode"] = False
        try:
            code = super().main(*args, **options)
        except typer.TyperException as error:
            message, code = error.format_message(), error.exit_code
        except typer.Abort:
            message, code = "interrupted", 130
        except (ValueError, RuntimeError) as error:
            # Every message of the library about an argument begins with its name.
            message, code = str(error), 2
            if not message.startswith("fastseg::"):
                raise
        except BrokenPipeError:
            sys.exit(1)
        except OSError as error:
            message, code = f"{error.filename}: {reason(error)}" if error.filename else reason(error), 2
        else:
            sys.exit(code if isinstance(code, int) else 0)
        if message:  # empty where the help was printed instead
            typer.echo(f"error: {' '.join(message.split())}", err=True)
        sys.exit(code)


app = typer.Typer(
    cls=OneLineErrors,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Fast semantic segmentation: hand-written kernels for PyTorch, and models that use them.",
)
app.command("demo")(demo)
app.command("segment", cls=WithPreset)(segment)
app.command("doctor")(doctor)
app.command("profile")(profile)
app.command("selftest")(selftest)
app.command("bench")(bench)
app.command("gpu-report")(gpu_report)
app.command("train")(train)
app.command("eval")(evaluate)


def _version(wanted: bool) -> None:
    if wanted:
        import fastseg

        typer.echo(fastseg.__version__)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    # Readers of damaged files warn on stderr before they fail; the verbs say it in one line of their own.
    warnings.filterwarnings("ignore", module="PIL")


def main() -> None:
    """Entry point of the console script."""
    app(prog_name="fastseg")
