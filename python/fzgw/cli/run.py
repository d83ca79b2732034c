"""`fzgw run`: the gateway, in the foreground, until a signal ends it."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import click

from fzgw.cli.options import config_argument, set_option


@click.command
@config_argument
@click.option("--flow-logs", is_flag=True, help="Write flow records to stdout, also without a stdout sink.")
@click.option(
    "--handler",
    "handlers",
    metavar="FILE.PY:NAME",
    multiple=True,
    help="A flow handler beside those of the configuration; relative to the working directory. May be repeated.",
)
@set_option
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="The lowest level of the program's log on stderr.",
)
@click.option(
    "--stats-file",
    metavar="PATH",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write counters and ledgers there as JSON at the end, and whenever SIGUSR1 comes.",
)
@click.pass_context
def run(
    ctx: click.Context,
    config: Path,
    flow_logs: bool,
    handlers: tuple[str, ...],
    overrides: tuple[str, ...],
    log_level: str,
    stats_file: Path | None,
) -> None:
    """Run the gateway, in the foreground, until a signal ends it. CONFIG is gateway.toml unless given.

    Flow records go to stdout as OCSF JSON lines: with a stdout sink in the configuration, with --flow-logs, or where
    RUST_LOG enables flow_logs at trace. The program's log goes to stderr, as JSON lines unless that is a terminal.

    \b
    SIGTERM, SIGINT  end every flow and deliver every record; a second one cuts that short
    SIGHUP           reload peers, rules and handlers: all of it or, with the reasons in the log, nothing
    SIGUSR1          write the stats file
    """
    from fzgw import logs
    from fzgw.app import App
    from fzgw.config import load

    logs.configure(log_level)
    app = App(
        load(config, overrides),
        load_config=lambda: load(config, overrides),
        flow_logs=flow_logs,
        handlers=handlers,
        stats_file=stats_file,
    )
    # Records alone go to stdout: what a handler prints must not land among them.
    with contextlib.redirect_stdout(sys.stderr):
        code = app.run()
    ctx.exit(code)
