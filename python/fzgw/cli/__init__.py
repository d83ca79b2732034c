"""The command line. Each verb is a file of this package and is imported when it is used: a running gateway carries
only what `run` needs.

Records and what a command was asked for go to stdout, everything else to stderr. Errors become one message and an
exit code in `fzgw.cli.errors`.
"""

import sys
from importlib import import_module
from typing import Any, TextIO

import click

from fzgw.cli.errors import reported

VERBS = ("run", "replay", "demo", "check", "init", "peer")
"""Each is a click command of its own name in the module of its own name."""


class Verbs(click.Group):
    """The group of all verbs, in the order in which one meets them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every verb, for the help text."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb, imported now; None when there is none of that name."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = getattr(import_module(f"fzgw.cli.{cmd_name}"), cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, with the nearest verb for one that does not exist."""
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            from fzgw.config.nearest import nearest

            close = nearest(name, VERBS)
            ctx.fail(f"No such command '{name}'." + (f" Did you mean '{close}'?" if close else ""))
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the verb; what it raises becomes a message and an exit code."""
        with reported(ctx):
            try:
                return super().invoke(ctx)
            finally:
                # Here and not at exit, where Python could only complain about a pipe that was closed.
                _flush(sys.stdout)


def _flush(stream: TextIO | None) -> None:
    """A program started with its stdout closed has none."""
    if stream is not None:
        stream.flush()


def _print_version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    import fzgw

    click.echo(f"fzgw {fzgw.__version__}")
    ctx.exit()


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_print_version, help="Show the version."
)
def main() -> None:
    """A WireGuard exit node that can say who opened every flow through it.

    Exit codes: 0 fine, 1 failed, 2 usage, 3 configuration, 4 privilege, 5 verification failed.
    """
