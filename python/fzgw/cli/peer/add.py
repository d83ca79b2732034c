"""``fzgw peer add``.

The order matters: first everything that can fail, then the client's configuration out to its owner, then the one step
that makes the peer exist. A private key that reached nobody would leave a peer that nobody can be.
"""

import ipaddress
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from fzgw import _core
from fzgw.cli.errors import Failure
from fzgw.cli.options import config_option
from fzgw.cli.peer.change import RELOAD, changing, judged, psk_file
from fzgw.cli.peer.wgquick import ClientConfig
from fzgw.config import Config, ConfigErrors, ConfigProblem, edit, files, values
from fzgw.config.addresses import NoFreeAddressError, next_free


@dataclass(frozen=True)
class NewPeer:
    """What was asked of ``peer add``, beside where it goes."""

    name: str
    user: str | None
    groups: tuple[str, ...]
    allowed_ips: tuple[str, ...]
    """Empty: the next free addresses."""
    public_key: str | None
    """None: a new key pair is made."""
    psk: bool
    keepalive: int
    """Seconds, of the client."""


def _judged_by(parse: Callable[[str], object]) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """A click callback that lets `parse` judge the value, or each of several, and passes it on as it is."""

    def callback(_ctx: click.Context, _parameter: click.Parameter, value: Any) -> Any:
        given = value if isinstance(value, tuple) else (value,)
        try:
            for item in given:
                if item is not None:
                    parse(item)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None
        return value

    return callback


def _networks(_ctx: click.Context, _parameter: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return tuple(values.network(item.strip()) for text in value for item in text.split(","))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command
@click.argument("name", callback=_judged_by(values.name))
@click.option("--user", metavar="USER", callback=_judged_by(values.name), help="Who it belongs to, on every record.")
@click.option(
    "--group",
    "groups",
    metavar="GROUP",
    multiple=True,
    callback=_judged_by(values.name),
    help="For rules. May be repeated.",
)
@click.option(
    "--allowed-ips",
    metavar="NETWORK",
    multiple=True,
    callback=_networks,
    help="Instead of the next free addresses: a single address or more, and networks behind the peer. "
    "May be repeated, or separated by commas.",
)
@click.option(
    "--public-key",
    metavar="KEY",
    callback=_judged_by(values.key),
    help="Of a key pair that the client made itself. Without it, a pair is made.",
)
@click.option("--psk", is_flag=True, help="Add a preshared key, in a file of its own.")
@click.option(
    "--keepalive",
    metavar="SECONDS",
    type=click.IntRange(0, 65535),
    default=25,
    show_default=True,
    help="Between keepalives of the client, which keep its NAT open; 0 for none.",
)
@click.option(
    "--out",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write the client's configuration to FILE (mode 0600) instead of stdout.",
)
@click.option("--qr", is_flag=True, help="Show it as a QR code too, on stderr, for the WireGuard app of a phone.")
@config_option
def add(config: Path, out: Path | None, qr: bool, **wanted: Any) -> None:
    """Add peer NAME and print the configuration for its WireGuard client.

    The client's private key is in what is printed and nowhere else. Nothing is changed unless it could be delivered.
    """
    new = NewPeer(**wanted)
    if qr and new.public_key is not None:
        raise click.UsageError("--qr needs the private key; with --public-key it is not known here")
    with changing(config) as before:
        client, table = _made(before, new)
        key_file = None if client.preshared_key is None else config.parent / psk_file(new.name)
        with _secret_file(key_file, f"{values.key_text(client.preshared_key or b'')}\n"):
            text, _ = judged(config, lambda text: edit.with_peer(text, table), "with this peer")
            with _secret_file(out, client.text()), files.replacement(config, text):
                _show(client, text=out is None, qr=qr)
    if client.private_key is not None:
        where = "went to stdout" if out is None else f"is in {out}"
        click.echo(f"{new.name}: its configuration {where}, with the only copy of its private key.", err=True)
    click.echo(f"{config}: peer {new.name} added with {', '.join(client.addresses)}. {RELOAD}", err=True)


def _made(config: Config, new: NewPeer) -> tuple[ClientConfig, dict[str, edit.TomlValue]]:
    """The peer from both sides: its own configuration, and its table in the gateway's."""
    endpoint = _endpoint(config)
    if any(each.name == new.name for each in config.peers):
        raise Failure(f'{config.path} has a peer "{new.name}" already')
    allowed_ips = new.allowed_ips or _free(config)
    private_key = _core.generate_private_key() if new.public_key is None else None
    preshared_key = secrets.token_bytes(values.KEY_BYTES) if new.psk else None

    client = ClientConfig(
        name=new.name,
        gateway=config.gateway,
        endpoint=endpoint,
        private_key=private_key,
        preshared_key=preshared_key,
        addresses=_client_addresses(allowed_ips),
        keepalive=new.keepalive,
    )
    table: dict[str, edit.TomlValue] = {"name": new.name}
    if new.user is not None:
        table["user"] = new.user
    if new.groups:
        table["groups"] = new.groups
    if new.public_key is not None:
        table["public_key"] = new.public_key
    elif private_key is not None:
        table["public_key"] = values.key_text(_core.public_key(private_key))
    if preshared_key is not None:
        table["preshared_key_file"] = psk_file(new.name)
    table["allowed_ips"] = allowed_ips
    return client, table


def _endpoint(config: Config) -> str:
    if config.gateway.endpoint is not None:
        return config.gateway.endpoint
    message = 'is not set, and clients need it to find the gateway: endpoint = "vpn.example.com:51820"'
    raise ConfigErrors([ConfigProblem(str(config.path), None, "gateway.endpoint", message)])


def _free(config: Config) -> tuple[str, ...]:
    try:
        return tuple(next_free(config))
    except NoFreeAddressError as error:
        raise Failure(f"{error}; --allowed-ips gives addresses of your choice") from None


def _client_addresses(allowed_ips: tuple[str, ...]) -> tuple[str, ...]:
    """Of what the peer may use, what its own interface carries: single addresses. The rest are networks behind it."""
    single = tuple(text for text in allowed_ips if ipaddress.ip_network(text).num_addresses == 1)
    if not single:
        raise click.UsageError("--allowed-ips needs a single address too, for the client's own interface")
    return single


@contextmanager
def _secret_file(path: Path | None, content: str) -> Iterator[None]:
    """A new file, if there is to be one, that only its owner can read; gone again when the block fails."""
    if path is None:
        yield
        return
    try:
        files.create(path, content, files.SECRET)
    except FileExistsError:
        raise Failure(f"{path} exists; it is not overwritten, and nothing was changed") from None
    try:
        yield
    except BaseException:
        path.unlink()
        raise


def _show(client: ClientConfig, *, text: bool, qr: bool) -> None:
    if text:
        click.echo(client.text(), nl=False)
        sys.stdout.flush()
    if qr:
        import segno

        # The lowest error correction: a screen has no stains, and the code should fit into 80 columns.
        segno.make_qr(client.for_qr(), error="l", boost_error=False).terminal(out=sys.stderr, border=2, compact=True)
