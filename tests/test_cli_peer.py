"""fzgw peer: add, list and remove, and the configuration that a client gets."""

import configparser
import io
import json
import os
import stat
import subprocess
import sys
from base64 import b64decode
from pathlib import Path

import pytest
import segno
from click.testing import CliRunner, Result

from config_files import GATEWAY, new_public_key, peer_table, write_config
from fzgw import _core
from fzgw.cli import main
from fzgw.config import load


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """gateway.toml in the working directory, without peers."""
    monkeypatch.chdir(tmp_path)
    return write_config(tmp_path)


def peer(*arguments: str) -> Result:
    """Runs `fzgw peer`."""
    return CliRunner().invoke(main, ["peer", *arguments])


def wg_quick(text: str) -> configparser.ConfigParser:
    """A client configuration, parsed."""
    parsed = configparser.ConfigParser(delimiters="=", comment_prefixes="#", strict=True)
    parsed.optionxform = str  # type: ignore[method-assign,assignment]
    parsed.read_string(text)
    return parsed


def files(directory: Path) -> set[str]:
    """The names of the files in a directory."""
    return {entry.name for entry in directory.iterdir()}


def mode(path: Path) -> int:
    """A file's permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


def test_add_prints_a_configuration_that_fits_the_gateways(path: Path) -> None:
    """stdout is a wg-quick file whose keys and addresses are those of the new table; the rest is on stderr."""
    path.write_text(GATEWAY + 'mtu = 1380\ndns = ["9.9.9.9", "2620:fe::fe"]\n')
    result = peer("add", "laptop-7", "--user", "a@example.com", "--group", "eng", "--group", "ops")
    assert result.exit_code == 0
    client = wg_quick(result.stdout)
    config = load(path)
    (added,) = config.peers
    assert (added.name, added.user, added.groups) == ("laptop-7", "a@example.com", ("eng", "ops"))
    assert added.allowed_ips == ("100.64.0.2/32", "fd00:64::2/128")
    private_key = b64decode(client["Interface"]["PrivateKey"])
    assert _core.public_key(private_key) == added.public_key
    assert dict(client["Interface"]) == {
        "PrivateKey": client["Interface"]["PrivateKey"],
        "Address": "100.64.0.2/32, fd00:64::2/128",
        "DNS": "9.9.9.9, 2620:fe::fe",
        "MTU": "1380",
    }
    assert b64decode(client["Peer"]["PublicKey"]) == config.gateway.public_key
    assert dict(client["Peer"]) == {
        "PublicKey": client["Peer"]["PublicKey"],
        "AllowedIPs": "0.0.0.0/0, ::/0",
        "Endpoint": "vpn.example.com:51820",
        "PersistentKeepalive": "25",
    }
    assert "SIGHUP" in result.stderr
    assert "only copy of its private key" in result.stderr


def test_the_private_key_is_stored_nowhere(path: Path) -> None:
    """What is printed is the only copy, and it says so itself."""
    result = peer("add", "laptop", "--psk")
    private_key = wg_quick(result.stdout)["Interface"]["PrivateKey"]
    assert "only copy of the peer's private key" in result.stdout
    assert all(private_key not in entry.read_text() for entry in path.parent.iterdir())
    assert private_key not in result.stderr


def test_a_gateway_of_one_family(path: Path) -> None:
    """Clients of a gateway without IPv6 are not told to send IPv6 to it; MTU and DNS are left out when unset."""
    path.write_text(GATEWAY.replace(', "fd00:64::1/64"', ""))
    client = wg_quick(peer("add", "laptop", "--keepalive", "0").stdout)
    assert client["Peer"]["AllowedIPs"] == "0.0.0.0/0"
    assert client["Interface"]["Address"] == "100.64.0.2/32"
    assert set(client["Interface"]) == {"PrivateKey", "Address"}
    assert "PersistentKeepalive" not in client["Peer"]


def test_the_next_peer_gets_the_next_addresses(path: Path) -> None:
    """Each peer has addresses of its own; those of a removed one are free again."""
    for name in ("a", "b", "c"):
        assert peer("add", name).exit_code == 0
    peer("remove", "b")
    peer("add", "d")
    assert {each.name: each.allowed_ips[0] for each in load(path).peers} == {
        "a": "100.64.0.2/32",
        "c": "100.64.0.4/32",
        "d": "100.64.0.3/32",
    }


def test_comments_formatting_and_mode_stay(path: Path) -> None:
    """A peer is added and removed without a trace in the rest of the file, which keeps its mode."""
    below = "\n# ---- sinks ----\n\n[[sinks]]\ntype='stdout'\n"
    text = f"# mine\n{GATEWAY}\n# the clients{peer_table('a', '100.64.0.9')}{below}"
    path.write_text(text)
    path.chmod(0o640)
    peer("add", "b")
    assert path.read_text().startswith(text.removesuffix(below))
    assert path.read_text().endswith(below)
    assert mode(path) == 0o640
    peer("remove", "b")
    assert path.read_text() == text
    assert mode(path) == 0o640


def test_a_link_stays_a_link(path: Path) -> None:
    """A configuration behind a symbolic link is changed where it is."""
    real = path.rename(path.with_name("real.toml"))
    path.symlink_to(real.name)
    assert peer("add", "a").exit_code == 0
    assert path.is_symlink()
    assert [each.name for each in load(real).peers] == ["a"]


def test_psk_has_a_file_of_its_own(path: Path) -> None:
    """The preshared key is in a file with mode 0600 beside the configuration, and the same for both sides."""
    result = peer("add", "../odd name", "--psk")
    assert result.exit_code == 0
    (added,) = load(path).peers
    assert added.preshared_key == b64decode(wg_quick(result.stdout)["Peer"]["PresharedKey"])
    (key_file,) = path.parent.glob("*.psk")
    assert mode(key_file) == 0o600
    peer("remove", "../odd name")
    assert not key_file.exists()


def test_a_psk_file_that_others_need_stays(path: Path) -> None:
    """`peer remove` takes only the file that `peer add` made, and only when no other peer has that key."""
    peer("add", "a", "--psk")
    path.write_text(path.read_text() + peer_table("b", "100.64.0.9/32", more='preshared_key_file = "a.psk"\n'))
    peer("remove", "a")
    assert (path.parent / "a.psk").exists()
    peer("remove", "b")
    assert (path.parent / "a.psk").exists()
    assert load(path).peers == ()


def test_out_writes_a_secret_file_and_overwrites_none(path: Path) -> None:
    """--out makes a file with mode 0600 and keeps stdout empty; a file that is there stops everything."""
    result = peer("add", "a", "--out", "a.conf")
    assert result.exit_code == 0
    assert result.stdout == ""
    assert mode(path.parent / "a.conf") == 0o600
    assert wg_quick((path.parent / "a.conf").read_text())["Interface"]["Address"].startswith("100.64.0.2/32")
    before, there = path.read_text(), files(path.parent)
    result = peer("add", "b", "--psk", "--out", "a.conf")
    assert result.exit_code == 1
    assert "a.conf exists" in result.stderr
    assert (path.read_text(), files(path.parent)) == (before, there)


def test_qr_holds_the_same_configuration(path: Path) -> None:
    """--qr draws on stderr the code of what stdout has, without its comments, no wider than 80 columns."""
    result = peer("add", "phone", "--psk", "--qr")
    content = "".join(line for line in result.stdout.splitlines(keepends=True) if not line.startswith("#"))
    drawn = io.StringIO()
    code = segno.make_qr(content, error="l", boost_error=False)
    code.terminal(out=drawn, border=2, compact=True)
    assert drawn.getvalue() in result.stderr
    assert code.symbol_size(border=2)[0] <= 80


def test_a_key_that_the_client_made(path: Path) -> None:
    """With --public-key no private key exists here: its place is left to the client, and --qr makes no sense."""
    key = new_public_key()
    result = peer("add", "a", "--public-key", key)
    assert result.exit_code == 0
    assert load(path).peers[0].public_key == b64decode(key)
    assert "PrivateKey" not in wg_quick(result.stdout)["Interface"]
    assert "# PrivateKey =" in result.stdout
    before = path.read_text()
    result = peer("add", "b", "--public-key", new_public_key(), "--qr")
    assert result.exit_code == 2
    assert path.read_text() == before


def test_allowed_ips_of_ones_choice(path: Path) -> None:
    """--allowed-ips replaces the next free addresses; single addresses are the client's, networks lie behind it."""
    result = peer("add", "site", "--allowed-ips", "100.64.7.1, 192.168.7.0/24", "--allowed-ips", "fd00:64::7")
    assert result.exit_code == 0
    assert load(path).peers[0].allowed_ips == ("100.64.7.1/32", "192.168.7.0/24", "fd00:64::7/128")
    assert wg_quick(result.stdout)["Interface"]["Address"] == "100.64.7.1/32, fd00:64::7/128"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--allowed-ips", "192.168.7.1/24"), "host bits set"),
        (("--allowed-ips", "192.168.7.0/24"), "needs a single address too"),
        (("--public-key", "short"), "is not base64"),
        (("--keepalive", "65536"), "65535"),
        (("--user", ""), "cannot be a name"),
        (("--group", " x"), "cannot be a name"),
    ],
)
def test_what_cannot_be_is_a_usage_error(path: Path, arguments: tuple[str, ...], message: str) -> None:
    """Values are judged before anything happens: exit code 2, nothing written."""
    before, there = path.read_text(), files(path.parent)
    result = peer("add", "a", "--psk", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert (path.read_text(), files(path.parent)) == (before, there)


def test_a_name_that_is_taken(path: Path) -> None:
    """Exit code 1, nothing changed."""
    peer("add", "a")
    before = path.read_text()
    result = peer("add", "a")
    assert result.exit_code == 1
    assert result.stderr == 'error: gateway.toml has a peer "a" already\n'
    assert path.read_text() == before


def test_a_result_that_would_be_wrong_is_not_written(path: Path) -> None:
    """A key, or a prefix, that another peer has: exit code 3 with the errors, no file changed, none left."""
    key = new_public_key()
    peer("add", "a", "--public-key", key)
    before, there = path.read_text(), files(path.parent)
    for arguments in (("--public-key", key), ("--allowed-ips", "100.64.0.2")):
        result = peer("add", "b", "--psk", *arguments)
        assert result.exit_code == 3
        assert "nothing was changed" in result.stderr
        assert "is already" in result.stderr
        assert (path.read_text(), files(path.parent)) == (before, there)


def test_a_configuration_that_is_wrong_is_not_touched(path: Path) -> None:
    """Its errors come first: exit code 3."""
    path.write_text(GATEWAY + "mtu = 5\n")
    result = peer("add", "a")
    assert result.exit_code == 3
    assert result.stderr == "gateway.toml:6: gateway.mtu: should be at least 1280, not 5\n"


def test_without_an_endpoint_there_is_no_client(path: Path) -> None:
    """Clients cannot do without one: the error says what to set, exit code 3, nothing changed."""
    text = GATEWAY.replace('endpoint = "vpn.example.com:51820"\n', "")
    path.write_text(text)
    result = peer("add", "a")
    assert result.exit_code == 3
    assert 'gateway.endpoint: is not set, and clients need it to find the gateway: endpoint = "' in result.stderr
    assert path.read_text() == text


def test_a_full_network(path: Path) -> None:
    """No address left is exit code 1 with the way out."""
    path.write_text(GATEWAY.replace("100.64.0.1/16", "10.0.0.1/30"))
    assert peer("add", "a").exit_code == 0
    result = peer("add", "b")
    assert result.exit_code == 1
    assert "10.0.0.0/30 has no free address left; --allowed-ips" in result.stderr


def test_a_configuration_that_cannot_be_delivered_adds_no_peer(path: Path) -> None:
    """A private key that reached nobody would leave a peer that nobody can be: then nothing is changed."""
    before, there = path.read_text(), files(path.parent)
    reader, writer = os.pipe()
    os.close(reader)
    try:
        result = subprocess.run(
            [sys.executable, "-m", "fzgw", "peer", "add", "a", "--psk"],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writer)
    assert (result.returncode, result.stderr) == (1, "")
    assert (path.read_text(), files(path.parent)) == (before, there)


def test_several_at_once_lose_nothing(path: Path) -> None:
    """Commands that run together wait for each other: every peer is there, with addresses of its own."""
    names = [f"p{number}" for number in range(4)]
    command = [sys.executable, "-m", "fzgw", "peer", "add"]
    running = [
        subprocess.Popen([*command, name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for name in names
    ]
    assert [process.wait(timeout=60) for process in running] == [0, 0, 0, 0]
    peers = load(path).peers
    assert sorted(each.name for each in peers) == names
    assert len({each.allowed_ips for each in peers}) == 4


def test_list(path: Path) -> None:
    """A table for people, whole lines for pipes; --json for programs, without secrets."""
    result = peer("list")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "has no peers" in result.stderr
    peer("add", "[bold]laptop", "--user", "a@example.com", "--group", "eng", "--psk")
    added = load(path).peers[0]
    shown = peer("list").stdout
    assert "[bold]laptop  a@example.com  eng     100.64.0.2/32, fd00:64::2/128" in shown
    (data,) = json.loads(peer("list", "--json").stdout)
    assert b64decode(data.pop("public_key")) == added.public_key
    assert data == {
        "name": "[bold]laptop",
        "user": "a@example.com",
        "groups": ["eng"],
        "preshared_key": True,
        "allowed_ips": ["100.64.0.2/32", "fd00:64::2/128"],
        "persistent_keepalive": None,
        "endpoint": None,
    }


def test_remove_names_the_nearest(path: Path) -> None:
    """A name that is not there is exit code 1 with the one that was probably meant."""
    peer("add", "laptop-7")
    result = peer("remove", "laptop7")
    assert result.exit_code == 1
    assert result.stderr == 'error: gateway.toml has no peer "laptop7"; did you mean "laptop-7"?\n'
    assert peer("remove", "laptop-7").exit_code == 0
    assert load(path).peers == ()


def test_remove_of_a_peer_that_a_rule_names(path: Path) -> None:
    """The rule would name nobody: exit code 3, the file stays."""
    peer("add", "a")
    path.write_text(path.read_text() + '\n[[rules]]\nname = "r"\npeers = ["a"]\n')
    before = path.read_text()
    result = peer("remove", "a")
    assert result.exit_code == 3
    assert 'there is no peer "a"' in result.stderr
    assert path.read_text() == before


def test_a_configuration_that_is_not_there(path: Path) -> None:
    """Each verb says so with exit code 3, also when its directory is missing."""
    for arguments in (("add", "a"), ("list",), ("remove", "a")):
        for missing in ("no.toml", "no/gateway.toml"):
            result = peer(*arguments, "--config", missing)
            assert result.exit_code == 3
            assert result.stderr == f"{missing}: there is no such file; `fzgw init` writes one\n"
