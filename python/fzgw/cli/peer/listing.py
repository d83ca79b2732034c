"""``fzgw peer list``."""

import json
from pathlib import Path

import click

from fzgw.cli.options import config_option, json_option
from fzgw.cli.peer.table import peer_as_json, show_peers
from fzgw.config import load


@click.command(name="list")
@config_option
@json_option
def list_(config: Path, as_json: bool) -> None:
    """List the peers of the configuration."""
    peers = load(config).peers
    if as_json:
        click.echo(json.dumps([peer_as_json(each) for each in peers], ensure_ascii=False, indent=2))
    elif peers:
        show_peers(peers)
    else:
        click.echo(f"{config} has no peers; `fzgw peer add NAME` makes one", err=True)
