"""Parsers of single values. Each takes what TOML gave, returns its normal form, or raises ValueError with one plain
sentence about what was meant. None of them knows where the value stands."""

import base64
import binascii
import ipaddress
import re
from datetime import date, time

KEY_BYTES = 32

LONGEST_DURATION = 366 * 86400.0
"""Seconds. Far above any use, far below what would overflow a 64-bit count of nanoseconds."""

LONGEST_NAME = 128

PORT_PROTOCOLS = ("tcp", "udp")

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?) ?(ms|s|m|h|d)")
# The kernel takes more; these are safe in an nftables rule and in a path below /proc/sys too.
_INTERFACE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}")
_SYSCTL_NAMES = ("all", "default")
_HOST_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_PORT_RANGE = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")


def kind(value: object) -> str:
    """What TOML calls the type of `value`, for messages."""
    match value:
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case dict():
            return "a table"
        case list() | tuple():
            return "a list"
        case date() | time():
            return "a date or time"
        case _:
            return type(value).__name__


def duration(value: object) -> float:
    """Seconds out of ``"5s"``, ``"500ms"``, ``"2m"``, ``"1h"``, ``"1d"`` or a number of seconds."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f'should be a duration such as "5s", "500ms" or "2m", not {kind(value)}')
    if isinstance(value, str):
        found = _DURATION.fullmatch(value)
        if found is None:
            hint = f', such as "{value}s"' if value.replace(".", "", 1).isdecimal() else ', such as "5s" or "500ms"'
            raise ValueError(f'"{value}" is not a duration: it needs a number and one of ms, s, m, h, d{hint}')
        value = float(found[1]) * _UNITS[found[2]]
    if not 0 <= value <= LONGEST_DURATION:
        raise ValueError("should be between 0 and 366 days")
    return float(value)


def key(text: str) -> bytes:
    """The 32 bytes of a WireGuard key in base64. The text itself is in no message: it may be a secret."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError('is not base64; a WireGuard key has 44 characters and ends in "="') from None
    if len(raw) != KEY_BYTES:
        raise ValueError(f"has {len(raw)} bytes; a WireGuard key has {KEY_BYTES} (44 characters of base64)")
    if not any(raw):
        raise ValueError("is all zeros, which is no key")
    return raw


def key_text(raw: bytes) -> str:
    """A key in base64, as files and WireGuard's tools have it."""
    return base64.b64encode(raw).decode("ascii")


def name(text: str) -> str:
    """A name people read in records: 1 to 128 printable characters, no spaces at its ends."""
    if not text or len(text) > LONGEST_NAME or not text.isprintable() or text != text.strip():
        raise ValueError(
            f'"{text}" cannot be a name: it needs 1 to {LONGEST_NAME} printable characters and no spaces at its ends'
        )
    return text


def interface_name(text: str) -> str:
    """A name for a network interface, out of those that mean themselves wherever such names are used."""
    if not _INTERFACE_NAME.fullmatch(text):
        raise ValueError(f'"{text}" cannot name an interface: it needs 1 to 15 letters, digits, "_", "-" or "."')
    if text in _SYSCTL_NAMES:
        raise ValueError(f'"{text}" cannot name an interface: the kernel means all of them by it')
    return text


def network(text: str) -> str:
    """A network in normal form: ``"10.1.2.0/24"``; a bare address is its /32 or /128. Host bits are refused: they
    are mostly a wrong prefix length."""
    try:
        return str(ipaddress.ip_network(_no_zone(text)))
    except ValueError:
        pass
    try:
        normal = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f'"{text}" is not a network such as "10.1.2.0/24" or "fd00:64::/64"') from None
    address = ipaddress.ip_interface(text).ip
    raise ValueError(
        f'"{text}" has host bits set: write "{normal}" for the network, '
        f'or "{address}/{address.max_prefixlen}" for the one address'
    )


def interface_address(text: str) -> str:
    """An address with the prefix length of its network, ``"100.64.0.1/16"``, as an interface carries it."""
    if "/" not in text:
        raise ValueError(f'"{text}" needs its prefix length, such as "100.64.0.1/16" or "fd00:64::1/64"')
    try:
        interface = ipaddress.ip_interface(_no_zone(text))
    except ValueError:
        raise ValueError(f'"{text}" is not an address with a prefix length such as "100.64.0.1/16"') from None
    net = interface.network
    if net.num_addresses > 2:
        if interface.ip == net.network_address:
            first = f"{interface.ip + 1}/{net.prefixlen}"
            raise ValueError(f'"{text}" is the network itself; the gateway needs an address in it, such as "{first}"')
        if interface.version == 4 and interface.ip == net.broadcast_address:
            raise ValueError(f'"{text}" is the broadcast address of {net}; the gateway needs another one in it')
    if interface.ip.is_multicast or interface.ip.is_unspecified or interface.ip.is_loopback:
        raise ValueError(f'"{text}" cannot be the address of an interface')
    return str(interface)


def address(text: str) -> str:
    """One IP address in normal form."""
    try:
        return str(ipaddress.ip_address(_no_zone(text)))
    except ValueError:
        raise ValueError(f'"{text}" is not an IP address') from None


def port(text: str) -> int:
    """A port from 1 to 65535 out of its digits."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and 1 <= int(text) <= 65535):
        raise ValueError(f'"{text}" is not a port from 1 to 65535')
    return int(text)


def endpoint(text: str) -> str:
    """Host and port as clients write them: ``vpn.example.com:51820``, ``192.0.2.1:51820``, ``[2001:db8::1]:51820``."""
    host, port_number = _split_endpoint(text, "vpn.example.com:51820")
    if _ip_or_none(host) is None and not _is_host_name(host):
        raise ValueError(f'"{host}" is neither an IP address nor a host name')
    return _join_endpoint(host, port_number)


def ip_endpoint(text: str) -> str:
    """An endpoint whose host is an IP address: ``192.0.2.1:51820`` or ``[2001:db8::1]:51820``."""
    host, port_number = _split_endpoint(text, "192.0.2.1:51820")
    if _ip_or_none(host) is None:
        raise ValueError(f'"{host}" is not an IP address; names are not looked up here')
    return _join_endpoint(host, port_number)


def domain(text: str) -> str:
    """A domain name, in lower case, without a dot at its end."""
    plain = text.removesuffix(".").lower()
    if not _is_host_name(plain):
        raise ValueError(f'"{text}" is not a domain name such as "wiki.example.com"')
    return plain


def port_rule(text: str) -> str:
    """What a resource lets through: ``tcp/443``, ``udp/53``, ``tcp/8000-8100``, ``tcp``, ``udp``, ``icmp``, ``any``."""
    if text in (*PORT_PROTOCOLS, "icmp", "any"):
        return text
    protocol, slash, ports = text.partition("/")
    if not slash or protocol not in PORT_PROTOCOLS:
        raise ValueError(f'"{text}" should be like "tcp/443", "udp/53", "tcp/8000-8100", "tcp", "udp", "icmp" or "any"')
    found = _PORT_RANGE.fullmatch(ports)
    if found is None:
        raise ValueError(f'"{text}": "{ports}" is not a port or a range such as "8000-8100"')
    first = port(found[1])
    last = port(found[2]) if found[2] else first
    if first > last:
        raise ValueError(f'"{text}" runs backwards: write "{protocol}/{last}-{first}"')
    return f"{protocol}/{first}" if first == last else f"{protocol}/{first}-{last}"


def handler_spec(text: str) -> tuple[str, str]:
    """File and name out of ``"handlers.py:Night"``."""
    file, colon, attribute = text.rpartition(":")
    if not colon or not file.endswith(".py") or not attribute.isidentifier():
        raise ValueError(f'"{text}" should name a file and what to load from it, such as "handlers.py:Night"')
    return file, attribute


def _no_zone(text: str) -> str:
    """An IPv6 zone ("%eth0") means nothing inside a tunnel, and ipaddress would let it pass."""
    if "%" in text:
        raise ValueError("has a zone")
    return text


def _ip_or_none(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(_no_zone(text))
    except ValueError:
        return None


def _is_host_name(text: str) -> bool:
    labels = text.split(".")
    # A name that ends in a number is a mistyped IPv4 address (and resolvers treat it as one).
    return len(text) <= 253 and all(map(_HOST_LABEL.fullmatch, labels)) and not labels[-1].isdecimal()


def _split_endpoint(text: str, example: str) -> tuple[str, int]:
    host, colon, port_text = text.rpartition(":")
    if not colon or (_ip_or_none(text) is not None):
        raise ValueError(f'"{text}" needs a host and a port, such as "{example}" or "[2001:db8::1]:51820"')
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        inner = _ip_or_none(host)
        if inner is None or inner.version != 6:
            raise ValueError(f'"{host}" is not an IPv6 address')
    elif ":" in host:
        raise ValueError(f'"{text}": an IPv6 address stands in brackets, such as "[2001:db8::1]:51820"')
    return host, port(port_text)


def _join_endpoint(host: str, port_number: int) -> str:
    ip = _ip_or_none(host)
    if ip is None:
        return f"{host}:{port_number}"
    return f"[{ip}]:{port_number}" if ip.version == 6 else f"{ip}:{port_number}"
