"""fzgw check: errors of the configuration, what the gateway would do, and what is wrong with the host."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import fzgw.host
from config_files import GATEWAY, peer_table, write_config, write_key
from fzgw.cli import main
from fzgw.host import Finding


@pytest.fixture(autouse=True)
def findings(monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    """What the host's check finds: nothing, until a test puts something there."""
    found: list[Finding] = []
    monkeypatch.setattr(fzgw.host, "check", lambda _config: found)
    return found


def check(*arguments: object) -> Result:
    """Runs `fzgw check`."""
    return CliRunner().invoke(main, ["check", *map(str, arguments)])


RULES = """
[[resources]]
name = "wiki"
addresses = ["10.1.2.0/24"]
ports = ["tcp/443", "icmp"]

[[resources]]
name = "lan"
addresses = ["10.0.0.0/8"]

[[rules]]
name = "engineering-wiki"
groups = ["engineering"]
resources = ["wiki", "lan"]

[[rules]]
name = "ssh-in"
peers = ["laptop"]
direction = "inbound"
"""


def whole(directory: Path) -> Path:
    """A configuration with two peers of a group, one with a preshared key, and rules."""
    write_key(directory / "a.psk", b"\xaa" * 32)
    laptop = peer_table("laptop", "100.64.0.2/32", more='groups = ["engineering"]\npreshared_key_file = "a.psk"\n')
    phone = peer_table("[phone]", "100.64.0.3/32", "192.168.7.0/24", more='groups = ["engineering"]\n')
    return write_config(directory, GATEWAY + laptop + phone + RULES)


def test_a_good_configuration_is_summed_up(tmp_path: Path) -> None:
    """Peers, networks, rules, NAT and where records go, on stdout, exit code 0; what is worth knowing on stderr."""
    result = check(whole(tmp_path))
    assert result.exit_code == 0
    for part in (
        "exit-1",
        "UDP port 51820",
        "vpn.example.com:51820",
        "100.64.0.1/16, fd00:64::1/64",
        "masquerade: what leaves by another interface than fzgw0",
        "off: no sink and no handler",
        "1,000,000 flows, of one peer at most 125,000",
        "what none of them allows is denied",
        "engineering-wiki: group engineering (2 peers) -> wiki (10.1.2.0/24, tcp/443, icmp)",
        "lan (10.0.0.0/8, any port)",
        "ssh-in: from outside -> peer laptop (1 peer): any destination",
        "peers: 2",
        "[phone]",
    ):
        assert part in result.stdout
    assert "info: " in result.stderr
    assert "192.168.7.0/24 is outside the gateway's networks" in result.stderr


def test_a_gateway_without_peers_and_rules(tmp_path: Path) -> None:
    """What is not there is said: everything is allowed, no peers, no NAT, records to stdout."""
    text = GATEWAY + '[nat]\nmode = "none"\n[[sinks]]\ntype = "stdout"\n'
    result = check(write_config(tmp_path, text))
    assert result.exit_code == 0
    for part in ("rules: none, everything is allowed", "peers: none yet", "none: packets leave with", "to stdout"):
        assert part in result.stdout


def test_errors_are_all_on_stderr_with_exit_code_3(tmp_path: Path) -> None:
    """Each error is a line, nothing is on stdout, and the host is not looked at."""
    path = write_config(tmp_path, GATEWAY + 'mtu = 5\nlisen = 5\n[nat]\nmode = "x"\n')
    result = check(path)
    assert result.exit_code == 3
    assert result.stdout == ""
    assert [line.split(": ")[0] for line in result.stderr.splitlines()] == [f"{path}:{line}" for line in (6, 7, 9)]


def test_set_is_judged_as_the_file_is(tmp_path: Path) -> None:
    """An override changes what is checked, and its errors name it."""
    path = write_config(tmp_path)
    assert "UDP port 5000" in check(path, "--set", "gateway.listen=5000").stdout
    result = check(path, "--set", "gateway.listen=x")
    assert result.exit_code == 3
    assert result.stderr.startswith("--set gateway.listen=x: gateway.listen: ")


def test_a_host_that_is_in_the_way_is_exit_code_1(tmp_path: Path, findings: list[Finding]) -> None:
    """A finding of level error fails the check, with its fix; the summary is there all the same."""
    findings.append(Finding("warning", "ufw drops what is forwarded", "ufw route allow in on fzgw0"))
    assert check(write_config(tmp_path)).exit_code == 0
    findings.append(Finding("error", "there is no /dev/net/tun", "modprobe tun"))
    result = check(tmp_path / "gateway.toml")
    assert result.exit_code == 1
    assert "exit-1" in result.stdout
    assert "warning: ufw drops what is forwarded\n  fix: ufw route allow in on fzgw0\n" in result.stderr
    assert "error: there is no /dev/net/tun\n  fix: modprobe tun\n" in result.stderr


def test_json_has_everything_but_secrets(tmp_path: Path, findings: list[Finding]) -> None:
    """--json gives the configuration in use with its defaults, warnings and findings, and no key that is secret."""
    findings.append(Finding("error", "there is no /dev/net/tun", "modprobe tun"))
    result = check(whole(tmp_path), "--json")
    assert result.exit_code == 1
    shown = json.loads(result.stdout)
    assert shown["ok"] is False
    assert shown["errors"] == []
    assert shown["findings"] == [{"level": "error", "message": "there is no /dev/net/tun", "fix": "modprobe tun"}]
    assert shown["warnings"][0]["key"] == "peers[1].allowed_ips[1]"
    assert shown["gateway"]["mtu"] == 1420
    assert len(shown["gateway"]["public_key"]) == 44
    assert shown["flow_logs"]["idle"]["udp"] == 120.0
    assert [peer["name"] for peer in shown["peers"]] == ["laptop", "[phone]"]
    assert [peer["preshared_key"] for peer in shown["peers"]] == [True, False]
    assert [rule["name"] for rule in shown["rules"]] == ["engineering-wiki", "ssh-in"]
    assert "private_key" not in result.stdout
    assert (tmp_path / "gateway.key").read_text().strip() not in result.stdout
    assert (tmp_path / "a.psk").read_text().strip() not in result.stdout


def test_json_of_a_wrong_configuration(tmp_path: Path) -> None:
    """--json gives errors as data too, with exit code 3."""
    path = write_config(tmp_path, GATEWAY + "mtu = 5\n")
    result = check(path, "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout) == {
        "ok": False,
        "file": str(path),
        "errors": [
            {
                "level": "error",
                "file": str(path),
                "line": 6,
                "key": "gateway.mtu",
                "message": "should be at least 1280, not 5",
            }
        ],
    }


def test_the_default_is_gateway_toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an argument the file in the working directory is meant."""
    monkeypatch.chdir(tmp_path)
    result = check()
    assert result.exit_code == 3
    assert result.stderr == "gateway.toml: there is no such file; `fzgw init` writes one\n"
