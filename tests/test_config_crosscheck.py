"""What is wrong, or worth knowing, across the tables of a configuration."""

from pathlib import Path

from config_files import GATEWAY, errors_in, new_public_key, peer_table, write_config, write_key
from fzgw import _core
from fzgw.config import load
from fzgw.config.values import key_text


def test_duplicate_keys_and_names(tmp_path: Path) -> None:
    """A second peer with a name or key that is taken is an error that points at the first."""
    key = new_public_key()
    text = GATEWAY + peer_table("a", "100.64.0.2/32", public_key=key) + peer_table("a", "100.64.0.3/32", public_key=key)
    assert errors_in(tmp_path, text) == [
        'gateway.toml:13: peers[1].name: "a" is already the name of peers[0] (line 7)',
        "gateway.toml:14: peers[1].public_key: is already the key of peers[0] (line 7)",
    ]


def test_the_gateways_own_key_as_a_peer(tmp_path: Path) -> None:
    """A peer with the gateway's public key is refused."""
    key = write_key(tmp_path / "gateway.key")
    text = GATEWAY + peer_table("a", "100.64.0.2/32", public_key=key_text(_core.public_key(key)))
    (error,) = errors_in(tmp_path, text)
    assert error.startswith("gateway.toml:9: peers[0].public_key: is the gateway's own key")


def test_the_same_prefix_at_two_peers(tmp_path: Path) -> None:
    """The same prefix, however it is written, belongs to one peer."""
    text = GATEWAY + peer_table("a", "fd00:64::2/128") + peer_table("b", "100.64.0.3/32", "FD00:64:0:0::2")
    (error,) = errors_in(tmp_path, text)
    assert error.startswith("gateway.toml:15: peers[1].allowed_ips[1]: fd00:64::2/128 is already among")


def test_nested_prefixes_are_fine(tmp_path: Path) -> None:
    """The longest match decides, so one peer's prefix may lie in another's."""
    text = GATEWAY + peer_table("site", "100.64.8.0/24") + peer_table("b", "100.64.8.7/32")
    config = load(write_config(tmp_path, text))
    assert [peer.allowed_ips for peer in config.peers] == [("100.64.8.0/24",), ("100.64.8.7/32",)]
    assert config.warnings == ()


def test_the_gateways_address_cannot_be_a_peers(tmp_path: Path) -> None:
    """An allowed IP that is the gateway's own address would never get an answer."""
    (error,) = errors_in(tmp_path, GATEWAY + peer_table("a", "100.64.0.1/32"))
    assert error.endswith("100.64.0.1 is the gateway's own address")


def test_an_address_twice_at_the_gateway(tmp_path: Path) -> None:
    """One address with two prefix lengths is a mistake."""
    (error,) = errors_in(tmp_path, GATEWAY.replace("fd00:64::1/64", "100.64.0.1/24"))
    assert error == "gateway.toml:4: gateway.addresses[1]: 100.64.0.1 is there twice"


def test_rules_name_what_there_is(tmp_path: Path) -> None:
    """Groups that no peer has, and users, peers and resources that are not there, are errors with the nearest."""
    peer = peer_table("laptop", "100.64.0.2/32", more='user = "alice@example.com"\ngroups = ["engineering"]\n')
    resource = '[[resources]]\nname = "wiki"\naddresses = ["10.0.0.0/8"]\n'
    rule = (
        '[[rules]]\nname = "r"\ngroups = ["engineering", "Enginering"]\nusers = ["alcie@example.com"]\n'
        'peers = ["laptob"]\nresources = ["wiki", "printer"]\n'
    )
    errors = errors_in(tmp_path, GATEWAY + peer + resource + rule)
    assert [error.split(": ", 1)[1] for error in errors] == [
        'rules[0].groups[1]: no peer is in group "Enginering"; did you mean "engineering"?',
        'rules[0].users[0]: no peer belongs to user "alcie@example.com"; did you mean "alice@example.com"?',
        'rules[0].peers[0]: there is no peer "laptob"; did you mean "laptop"?',
        'rules[0].resources[1]: there is no resource "printer"; there is "wiki"',
    ]


def test_a_second_stdout_sink(tmp_path: Path) -> None:
    """Records go to stdout once."""
    (error,) = errors_in(tmp_path, GATEWAY + '[[sinks]]\ntype = "stdout"\n[[sinks]]\ntype = "stdout"\n')
    assert error.startswith("gateway.toml:9: sinks[1].type: stdout is already sinks[0] (line 6)")


def test_the_keys_of_an_unknown_sink_are_not_judged(tmp_path: Path) -> None:
    """An unknown type is one error, whatever other keys it has."""
    (error,) = errors_in(tmp_path, GATEWAY + '[[sinks]]\ntype = "syslog"\naddress = "192.0.2.1:514"\n')
    assert error == 'gateway.toml:7: sinks[0].type: should be "stdout", not "syslog"'


def test_a_peers_share_of_flows_is_not_more_than_all(tmp_path: Path) -> None:
    """max_flows_per_peer above max_flows contradicts itself (R26)."""
    (error,) = errors_in(tmp_path, GATEWAY + "[flow_logs]\nmax_flows = 10\nmax_flows_per_peer = 11\n")
    assert error == "gateway.toml:8: flow_logs.max_flows_per_peer: is more than max_flows (10)"


def test_what_gets_a_route_is_said(tmp_path: Path) -> None:
    """Allowed IPs outside the gateway's networks get a route, 0.0.0.0/0 none; IPv6 needs a gateway that has it."""
    text = GATEWAY.replace(', "fd00:64::1/64"', "") + peer_table(
        "site", "100.64.0.2/32", "192.168.7.0/24", "100.0.0.0/8", "0.0.0.0/0", "fd00::/64"
    )
    warnings = load(write_config(tmp_path, text)).warnings
    assert [(warning.level, warning.key) for warning in warnings] == [
        ("info", "peers[0].allowed_ips[1]"),
        ("info", "peers[0].allowed_ips[2]"),
        ("info", "peers[0].allowed_ips[3]"),
        ("warning", "peers[0].allowed_ips[4]"),
    ]
    assert warnings[0].message == "192.168.7.0/24 is outside the gateway's networks: the host gets a route to it"
    assert "default route stays" in warnings[2].message
    assert "no IPv6 address" in warnings[3].message
