"""What every command has: `--verbose`, errors as one short message, and an exit status that says whose fault it was."""

from __future__ import annotations

import sys
import traceback
import warnings
from typing import Any

import click

from evo_tvm.errors import EvoError

#: Exit status of a command that Ctrl-C ended, as shells expect it.
INTERRUPTED = 130


class Command(click.Command):
    """A command whose errors end in one message on standard error: what, where, and what to do next."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.params.append(click.Option(["--verbose"], is_flag=True, help="Show the traceback of an error."))

    def invoke(self, ctx: click.Context) -> None:
        """Run the command; its exit status is 0, 1 (the work failed), 2 (wrong use) or 130 (interrupted)."""
        verbose = ctx.params.pop("verbose")
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _show_warning
                super().invoke(ctx)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            ctx.exit(INTERRUPTED)
        except EvoError as error:
            _report(str(error), verbose)
            ctx.exit(error.exit_status)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            _report(
                f"{type(error).__name__}: {error}\n"
                "This is a fault of evo_tvm. Please report it with what --verbose shows.",
                verbose,
            )
            ctx.exit(1)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"warning: {message}", file=sys.stderr)


def _report(text: str, verbose: bool) -> None:
    if verbose:
        traceback.print_exc()
    print(f"error: {text}", file=sys.stderr)
