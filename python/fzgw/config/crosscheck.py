"""What spans tables: duplicates, the gateway's own key, references of rules, routes.

It reads the document and not the models, because it has to find everything in a configuration that has other errors
too: a value that is wrong by itself is passed over here, it has been reported already.
"""

import ipaddress
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from fzgw.config import values
from fzgw.config.document import Document
from fzgw.config.errors import ConfigProblem, KeyPath
from fzgw.config.keyfiles import KeyFiles
from fzgw.config.nearest import nearest, quoted

DEFAULT_DENY = "default-deny"
"""The name of the rule that denies what no rule allows (P1)."""

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
IPInterface = ipaddress.IPv4Interface | ipaddress.IPv6Interface

Parsed = TypeVar("Parsed")


def crosscheck(document: Document, files: KeyFiles) -> Iterator[ConfigProblem]:
    """Everything wrong, risky or worth knowing that one table alone does not show."""
    yield from _names(document)
    yield from _keys(document, files)
    yield from _gateway_addresses(document)
    yield from _prefixes(document)
    yield from _references(document)
    yield from _sinks(document)
    yield from flow_limits(document)
    yield from _exposed_key_files(document, files)


def flow_limits(document: Document) -> Iterator[ConfigProblem]:
    """What the limits of [flow_logs] say against each other."""
    table = document.table("flow_logs")
    total, each = table.get("max_flows", 1_000_000), table.get("max_flows_per_peer", 0)
    if isinstance(total, int) and isinstance(each, int) and each > total > 0:
        yield document.problem(("flow_logs", "max_flows_per_peer"), f"is more than max_flows ({total})")


def _names(document: Document) -> Iterator[ConfigProblem]:
    for table in ("peers", "resources", "rules"):
        first: dict[str, int] = {}
        for position, entry in document.tables(table):
            name = entry.get("name")
            if not isinstance(name, str):
                continue
            key: KeyPath = (table, position, "name")
            if table == "rules" and name == DEFAULT_DENY:
                yield document.problem(
                    key, f'"{DEFAULT_DENY}" names what no rule allows; call this rule something else'
                )
            elif name in first:
                yield document.problem(key, f'"{name}" is already the name of {document.place((table, first[name]))}')
            else:
                first[name] = position


def _keys(document: Document, files: KeyFiles) -> Iterator[ConfigProblem]:
    own = _own_public_key(document, files)
    first: dict[bytes, int] = {}
    for position, peer in document.tables("peers"):
        public_key = _attempt(values.key, peer.get("public_key"))
        if public_key is None:
            continue
        key: KeyPath = ("peers", position, "public_key")
        if public_key == own:
            yield document.problem(key, "is the gateway's own key; a peer needs a key pair of its own")
        elif public_key in first:
            yield document.problem(key, f"is already the key of {document.place(('peers', first[public_key]))}")
        else:
            first[public_key] = position


def _own_public_key(document: Document, files: KeyFiles) -> bytes | None:
    from fzgw._core import public_key

    private_key = _attempt(files.key, document.table("gateway").get("private_key_file"))
    return None if private_key is None else public_key(private_key)


def _gateway_addresses(document: Document) -> Iterator[ConfigProblem]:
    first: dict[object, int] = {}
    for position, interface in _interfaces(document):
        key: KeyPath = ("gateway", "addresses", position)
        if interface.ip in first:
            yield document.problem(key, f"{interface.ip} is there twice")
        first.setdefault(interface.ip, position)


def _prefixes(document: Document) -> Iterator[ConfigProblem]:
    interfaces = [interface for _, interface in _interfaces(document)]
    own = {interface.ip for interface in interfaces}
    first: dict[IPNetwork, int] = {}
    for position, peer in document.tables("peers"):
        for item, prefix in _networks(peer.get("allowed_ips")):
            key: KeyPath = ("peers", position, "allowed_ips", item)
            holder = first.setdefault(prefix, position)
            if holder != position:
                yield document.problem(
                    key, f"{prefix} is already among the allowed IPs of {document.place(('peers', holder))}"
                )
            elif prefix.num_addresses == 1 and prefix.network_address in own:
                yield document.problem(key, f"{prefix.network_address} is the gateway's own address")
            elif interfaces:
                yield from _route(document, key, prefix, interfaces)


def _route(
    document: Document, key: KeyPath, prefix: IPNetwork, interfaces: list[IPInterface]
) -> Iterator[ConfigProblem]:
    if prefix.prefixlen == 0:
        message = f"{prefix} says what the peer may send; the host's own default route stays where it is"
        yield document.problem(key, message, "info")
    elif prefix.version == 6 and not any(interface.version == 6 for interface in interfaces):
        message = f"the gateway has no IPv6 address, so there is no IPv6 in the tunnel and {prefix} carries nothing"
        yield document.problem(key, message, "warning")
    elif not any(_inside(prefix, interface.network) for interface in interfaces):
        yield document.problem(key, f"{prefix} is outside the gateway's networks: the host gets a route to it", "info")


def _inside(prefix: IPNetwork, network: IPNetwork) -> bool:
    return prefix.network_address in network and prefix.prefixlen >= network.prefixlen


def _references(document: Document) -> Iterator[ConfigProblem]:
    peers = [peer for _, peer in document.tables("peers")]
    known = {
        "groups": {group for peer in peers for group in _texts(peer.get("groups"))},
        "users": {user for peer in peers for user in _texts(peer.get("user"))},
        "peers": {name for peer in peers for name in _texts(peer.get("name"))},
        "resources": {name for _, resource in document.tables("resources") for name in _texts(resource.get("name"))},
    }
    missing = {
        "groups": "no peer is in group",
        "users": "no peer belongs to user",
        "peers": "there is no peer",
        "resources": "there is no resource",
    }
    for position, rule in document.tables("rules"):
        for field, names in known.items():
            referred = rule.get(field)
            for item, name in enumerate(referred if isinstance(referred, tuple) else ()):
                if isinstance(name, str) and name not in names:
                    message = f'{missing[field]} "{name}"{_known(name, names)}'
                    yield document.problem(("rules", position, field, item), message)


def _known(name: str, names: set[str]) -> str:
    close = nearest(name, names)
    if close is not None:
        return f'; did you mean "{close}"?'
    return f"; there is {quoted(sorted(names))}" if 0 < len(names) <= 5 else ""


def _sinks(document: Document) -> Iterator[ConfigProblem]:
    stdout = [position for position, sink in document.tables("sinks") if sink.get("type") == "stdout"]
    for position in stdout[1:]:
        message = f"stdout is already {document.place(('sinks', stdout[0]))}: every record would be there twice"
        yield document.problem(("sinks", position, "type"), message)


def _exposed_key_files(document: Document, files: KeyFiles) -> Iterator[ConfigProblem]:
    named: list[tuple[KeyPath, Any]] = [
        (("gateway", "private_key_file"), document.table("gateway").get("private_key_file"))
    ]
    for position, peer in document.tables("peers"):
        named.append((("peers", position, "preshared_key_file"), peer.get("preshared_key_file")))
    for key, name in named:
        if isinstance(name, str) and files.readable_by_all(name):
            path = files.resolve(name)
            yield document.problem(key, f"every user of this host can read the key: chmod 600 {path}", "warning")


def _interfaces(document: Document) -> list[tuple[int, IPInterface]]:
    found = document.table("gateway").get("addresses")
    parsed = [(position, _attempt(values.interface_address, item)) for position, item in enumerate(_items(found))]
    return [(position, ipaddress.ip_interface(text)) for position, text in parsed if text is not None]


def _networks(found: object) -> list[tuple[int, IPNetwork]]:
    parsed = [(position, _attempt(values.network, item)) for position, item in enumerate(_items(found))]
    return [(position, ipaddress.ip_network(text)) for position, text in parsed if text is not None]


def _items(found: object) -> tuple[object, ...]:
    return found if isinstance(found, tuple) else ()


def _texts(found: object) -> Iterable[str]:
    """The texts in a list, or the one text that should have been in a list: it still tells what was meant."""
    return [item for item in (found if isinstance(found, tuple) else (found,)) if isinstance(item, str)]


def _attempt(parse: Callable[[str], Parsed], value: object) -> Parsed | None:
    if not isinstance(value, str):
        return None
    try:
        return parse(value)
    except ValueError:
        return None
