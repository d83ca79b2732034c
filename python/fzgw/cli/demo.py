"""``fzgw demo``: a gateway, two clients and a server at work, on any Linux machine and without a configuration."""

import sys

import click

from fzgw.cli.errors import Failure, PrivilegeFailure

_SIGNALLED = 128
"""A shell adds the signal's number to it."""


@click.command
@click.option("--json", "as_json", is_flag=True, help="Print the gateway's OCSF lines as they come instead of a table.")
@click.pass_context
def demo(ctx: click.Context, as_json: bool) -> None:
    """See a whole gateway at work: needs no configuration, leaves nothing behind, takes some ten seconds.

    Makes network namespaces for two clients, a gateway and a server, runs the real gateway in there, makes traffic
    (uploads, downloads, DNS, pings, a denied attempt, a client that roams) and shows the records as flows close, then
    the balanced books. The demo checks them against what its clients did: exit code 1 names what is missing.

    Needs `nft`, and either root or a kernel that lets users make namespaces of their own (exit code 4 says how).
    """
    from fzgw import logs
    from fzgw.demo.errors import DemoError, Interrupted, NoPrivilegeError
    from fzgw.demo.run import run_demo

    # The client engines are part of this process: what they have to say is for stderr, and only if it is trouble.
    logs.configure("warning")
    try:
        run_demo(as_json=as_json, command=f"{sys.executable} -m fzgw demo")
    except NoPrivilegeError as error:
        raise PrivilegeFailure(str(error)) from error
    except DemoError as error:
        raise Failure(str(error)) from error
    except Interrupted as interrupted:
        click.echo("interrupted: all that the demo made is removed", err=True)
        ctx.exit(_SIGNALLED + interrupted.signal_number)
    click.echo("every flow is told as its client made it, and every ledger balances", err=True)
