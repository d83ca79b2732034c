"""``fzgw peer``: peers into the configuration and out of it, and what their owners need.

`add`, `listing` and `remove` are the verbs; `change` is what the two that write have in common, `wgquick` the client's
own configuration, `table` how peers are shown.
"""

import click

from fzgw.cli.peer.add import add
from fzgw.cli.peer.listing import list_
from fzgw.cli.peer.remove import remove


@click.group
def peer() -> None:
    """Add, list and remove peers."""


for _verb in (add, list_, remove):
    peer.add_command(_verb)
