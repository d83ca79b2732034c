"""Every error of a configuration at once, each with its line and what was meant."""

from pathlib import Path

import pytest

from config_files import GATEWAY, errors_in, errors_of, new_public_key, peer_table, write_config
from fzgw.config import load

WRONG = [
    # (line that is appended to the gateway's table, key, what the message says)
    ("lisen = 5", "gateway.lisen", 'did you mean "listen"?'),
    ("open_after = 5", "gateway.open_after", "it belongs in [flow_logs]"),
    ("zzz = 5", "gateway.zzz", "is not known; known here: name, private_key_file, listen"),
    ("listen = 65536", "gateway.listen", "should be at most 65535, not 65536"),
    ('listen = "51820"', "gateway.listen", 'should be a whole number, not "51820"'),
    ("listen = true", "gateway.listen", "should be a whole number, not true or false"),
    ("listen = 5.5", "gateway.listen", "should be a whole number, not 5.5"),
    ("mtu = 1279", "gateway.mtu", "should be at least 1280, not 1279"),
    ("mtu = 8921", "gateway.mtu", "should be at most 8920, not 8921"),
    ('interface = "sixteen-letters-"', "gateway.interface", "it needs 1 to 15 letters"),
    ('interface = "a/b"', "gateway.interface", "cannot name an interface"),
    ('interface = "a b"', "gateway.interface", "cannot name an interface"),
    ('interface = "all"', "gateway.interface", "the kernel means all of them by it"),
    ('dns = "9.9.9.9"', "gateway.dns", "should be a list such as"),
    ('dns = ["dns.example.com"]', "gateway.dns[0]", "is not an IP address"),
    ('dns = ["fe80::1%eth0"]', "gateway.dns[0]", "is not an IP address"),
    ('state_dir = ""', "gateway.state_dir", "should be a path, not empty"),
    ("state_dir = 5", "gateway.state_dir", "should be a path, not a number"),
    ("[nat]\nmode = 'masq'", "nat.mode", 'should be "masquerade" or "none", not "masq"'),
    ("[flow_logs]\nopen_after = '5'", "flow_logs.open_after", 'such as "5s"'),
    ("[flow_logs]\nopen_after = 'soon'", "flow_logs.open_after", "is not a duration"),
    ("[flow_logs]\nopen_after = true", "flow_logs.open_after", "should be a duration"),
    ("[flow_logs]\nopen_after = -1", "flow_logs.open_after", "should be between 0 and 366 days"),
    ("[flow_logs]\nopen_after = inf", "flow_logs.open_after", "should be between 0 and 366 days"),
    ("[flow_logs]\nopen_after = nan", "flow_logs.open_after", "should be between 0 and 366 days"),
    ("[flow_logs]\nupdate_every = 0", "flow_logs.update_every", "should be more than 0"),
    ("[flow_logs]\nmax_flows = 0", "flow_logs.max_flows", "should be at least 1, not 0"),
    ("[flow_logs.idle]\nupd = 5", "flow_logs.idle.upd", 'did you mean "udp"?'),
    ("[limits]\nhandshake_rate = 0", "limits.handshake_rate", "should be at least 1, not 0"),
    ("[[nat]]", "nat", "should be one table, [nat], not a list"),
    ("[peers]", "peers", "should be a list of tables, each under [[peers]], not a table"),
    ("[[sinks]]\ntype = 'file'", "sinks[0].type", 'should be "stdout", not "file"'),
    ("[[sinks]]", "sinks[0].type", "is missing"),
    ("[[handlers]]\nload = 'handlers'", "handlers[0].load", 'such as "handlers.py:Night"'),
    ("[[handlers]]\nload = 'no.py:Night'", "handlers[0].load", "no.py does not exist"),
    ("[[resources]]\nname = 'a'\naddresses = ['10.1.2.3/24']", "resources[0].addresses[0]", 'write "10.1.2.0/24"'),
    ("[[resources]]\nname = 'a'\naddresses = []", "resources[0].addresses", "should not be empty"),
    ("[[resources]]\nname = 'a'\naddresses = ['x']", "resources[0].addresses[0]", "is not a network"),
    ("[[rules]]\nname = ''", "rules[0].name", "cannot be a name"),
    ("[[rules]]\nname = 'a'\ndirection = 'in'", "rules[0].direction", 'should be "outbound" or "inbound"'),
    ("[[rules]]\nname = 'default-deny'", "rules[0].name", "call this rule something else"),
]


@pytest.mark.parametrize(("lines", "key", "message"), WRONG, ids=[f"{key}:{lines}" for lines, key, _ in WRONG])
def test_one_mistake_is_one_line_that_says_what_was_meant(tmp_path: Path, lines: str, key: str, message: str) -> None:
    """File, line, key and what was meant, for each kind of mistake; nothing else is complained about."""
    text = f"{GATEWAY}{lines}\n"
    (error,) = errors_in(tmp_path, text)
    assert error.startswith(f"gateway.toml:{len(text.splitlines())}: {key}: ")
    assert message in error


@pytest.mark.parametrize(
    ("ports", "message"),
    [
        ("tcp/443-3", 'runs backwards: write "tcp/3-443"'),
        ("tcp/0", '"0" is not a port'),
        ("tcp/65536", '"65536" is not a port'),
        ("tcp/", "is not a port or a range"),
        ("icmp/8", 'should be like "tcp/443"'),
        ("sctp/4", 'should be like "tcp/443"'),
        ("TCP", 'should be like "tcp/443"'),
        ("443", 'should be like "tcp/443"'),
    ],
)
def test_bad_ports_of_a_resource(tmp_path: Path, ports: str, message: str) -> None:
    """Ports are named with their protocol, from 1 to 65535, ranges upwards."""
    text = f"{GATEWAY}[[resources]]\nname = 'a'\naddresses = ['10.0.0.0/8']\nports = ['{ports}']\n"
    (error,) = errors_in(tmp_path, text)
    assert error.startswith("gateway.toml:9: resources[0].ports[0]: ")
    assert message in error


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        ("vpn.example.com", "needs a host and a port"),
        ("2001:db8::1", "needs a host and a port"),
        ("2001:db8::1:51820:1", "stands in brackets"),
        ("[vpn]:51820", '"vpn" is not an IPv6 address'),
        ("vpn.example.com:0", '"0" is not a port'),
        ("vpn.example.com:http", '"http" is not a port'),
        ("vpn_!.example.com:1", "is neither an IP address nor a host name"),
        ("300.1.1.1:51820", "is neither an IP address nor a host name"),
        (":51820", "is neither an IP address nor a host name"),
    ],
)
def test_bad_endpoints(tmp_path: Path, endpoint: str, message: str) -> None:
    """The gateway's endpoint is a host and a port; IPv6 stands in brackets."""
    (error,) = errors_in(tmp_path, GATEWAY.replace("vpn.example.com:51820", endpoint))
    assert error.startswith("gateway.toml:5: gateway.endpoint: ")
    assert message in error


@pytest.mark.parametrize("endpoint", ["192.0.2.1:1", "[2001:db8::1]:51820", "localhost:51820", "VPN.example.com:9"])
def test_good_endpoints(tmp_path: Path, endpoint: str) -> None:
    """Names and addresses of both families are kept as they are."""
    config = load(write_config(tmp_path, GATEWAY.replace("vpn.example.com:51820", endpoint)))
    assert config.gateway.endpoint == endpoint


def test_a_peers_endpoint_is_an_address(tmp_path: Path) -> None:
    """A peer's endpoint is not looked up, so a name is refused."""
    text = GATEWAY + peer_table("a", "100.64.0.2/32", more='endpoint = "a.example.com:51820"\n')
    (error,) = errors_in(tmp_path, text)
    assert error.startswith("gateway.toml:11: peers[0].endpoint: ")
    assert "is not an IP address" in error


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("100.64.0.1", "needs its prefix length"),
        ("100.64.0.0/16", 'such as "100.64.0.1/16"'),
        ("100.64.255.255/16", "is the broadcast address"),
        ("fd00:64::/64", 'such as "fd00:64::1/64"'),
        ("127.0.0.1/8", "cannot be the address of an interface"),
        ("100.64.0.1/33", "is not an address with a prefix length"),
        ("fe80::1%eth0/64", "is not an address with a prefix length"),
    ],
)
def test_bad_gateway_addresses(tmp_path: Path, address: str, message: str) -> None:
    """The gateway's addresses are addresses an interface can have, with their prefix lengths."""
    (error,) = errors_in(tmp_path, GATEWAY.replace("100.64.0.1/16", address))
    assert error.startswith("gateway.toml:4: gateway.addresses[0]: ")
    assert message in error


def test_an_empty_file_names_the_table_that_must_be_there(tmp_path: Path) -> None:
    """Without [gateway] there is one error, not one a key."""
    assert errors_in(tmp_path, "") == ["gateway.toml: gateway: is missing: the table [gateway] has to be there"]


def test_missing_keys_are_told_at_their_table(tmp_path: Path) -> None:
    """Each required key that is not there is an error at its table's line that says what it is for."""
    errors = errors_in(tmp_path, "\n[gateway]\n[[peers]]\n[[resources]]\n[[rules]]\n[[handlers]]\n")
    assert [error.split(": ")[:2] for error in errors] == [
        ["gateway.toml:2", "gateway.name"],
        ["gateway.toml:2", "gateway.private_key_file"],
        ["gateway.toml:2", "gateway.addresses"],
        ["gateway.toml:3", "peers[0].name"],
        ["gateway.toml:3", "peers[0].public_key"],
        ["gateway.toml:3", "peers[0].allowed_ips"],
        ["gateway.toml:4", "resources[0].name"],
        ["gateway.toml:4", "resources[0].addresses"],
        ["gateway.toml:5", "rules[0].name"],
        ["gateway.toml:6", "handlers[0].load"],
    ]
    assert all(": is missing" in error for error in errors)


def test_everything_wrong_is_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    """Errors of single values, of key files and of what spans tables come in one report, sorted by line."""
    text = f"""\
[gateway]
name = "exit-1"
private_key_file = "nowhere.key"
addresses = ["100.64.0.1/16"]
mtu = 100

[[peers]]
name = "a"
groups = ["engineering"]
public_key = "{new_public_key()}"
allowed_ips = ["100.64.0.2/32"]

[[peers]]
name = "a"
public_key = "AAAA"
allowed_ips = ["100.64.0.2/32"]
keepalive = 5

[[rules]]
name = "r"
groups = ["enginering"]
resources = ["wiki"]
"""
    assert errors_in(tmp_path, text) == [
        "gateway.toml:3: gateway.private_key_file: nowhere.key does not exist",
        "gateway.toml:5: gateway.mtu: should be at least 1280, not 100",
        'gateway.toml:14: peers[1].name: "a" is already the name of peers[0] (line 7)',
        "gateway.toml:15: peers[1].public_key: has 3 bytes; a WireGuard key has 32 (44 characters of base64)",
        "gateway.toml:16: peers[1].allowed_ips[0]: 100.64.0.2/32 is already among the allowed IPs of peers[0] (line 7)",
        'gateway.toml:17: peers[1].keepalive: is not known; did you mean "persistent_keepalive"?',
        'gateway.toml:21: rules[0].groups[0]: no peer is in group "enginering"; did you mean "engineering"?',
        'gateway.toml:22: rules[0].resources[0]: there is no resource "wiki"',
    ]


def test_a_syntax_error_comes_alone_with_its_line(tmp_path: Path) -> None:
    """Behind a syntax error nothing can be trusted: it is the only one."""
    (error,) = errors_in(tmp_path, GATEWAY + "mtu = \nlisten = 70000\n")
    assert error.startswith("gateway.toml:6: TOML syntax: ")


def test_a_syntax_error_at_the_end_has_the_last_line(tmp_path: Path) -> None:
    """What is left open at the end of the file is told at its last line."""
    (error,) = errors_in(tmp_path, GATEWAY + 'dns = ["9.9.9.9"')
    assert error.startswith("gateway.toml:6: TOML syntax: ")


def test_a_key_that_is_there_twice_is_a_syntax_error(tmp_path: Path) -> None:
    """TOML itself refuses it, with the line of the second one."""
    (error,) = errors_in(tmp_path, GATEWAY + 'mtu = 1420\nmtu = 1400\n[nat]\nmode = "none"\n')
    assert error.startswith("gateway.toml:7: TOML syntax: ")


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    """The line of the first bad byte is named."""
    path = write_config(tmp_path)
    path.write_bytes(path.read_bytes() + b'\n\xff = "x"\n')
    assert errors_of(path) == ["gateway.toml:7: TOML syntax: is not UTF-8"]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """The error names the file and the command that writes one."""
    assert errors_of(tmp_path / "no.toml") == ["no.toml: there is no such file; `fzgw init` writes one"]
    (tmp_path / "folder").mkdir()
    assert errors_of(tmp_path / "folder") == ["folder: cannot be read: Is a directory"]


def test_an_entry_of_a_long_list_has_its_own_line(tmp_path: Path) -> None:
    """In a list over several lines, the error is told where the entry stands."""
    (error,) = errors_in(tmp_path, GATEWAY + 'dns = [\n  "9.9.9.9",\n  # the other one\n  "9.9.9",\n]\n')
    assert error.startswith("gateway.toml:9: gateway.dns[1]: ")


def test_what_only_one_of_the_parsers_takes_is_a_syntax_error(tmp_path: Path) -> None:
    """Python reads integers of any size, TOML has 64 bits: one error with its line."""
    (error,) = errors_in(tmp_path, GATEWAY + "listen = 99999999999999999999\n")
    assert error.startswith("gateway.toml:6: TOML syntax: ")


def test_a_message_is_one_line_without_control_characters(tmp_path: Path) -> None:
    """Whatever a text in the file holds, it cannot write to the terminal as it likes."""
    (error,) = errors_in(tmp_path, GATEWAY.replace('"exit-1"', '"a\\u001b[31m\\nb"'))
    assert error.startswith(r'gateway.toml:2: gateway.name: "a\x1b[31m\nb" cannot be a name')
