"""`--set`: any key for one run."""

from pathlib import Path

import pytest

from config_files import GATEWAY, errors_of, peer_table, write_config
from fzgw.config import ConfigErrors, load, load_flow_logs


@pytest.mark.parametrize(
    ("override", "attribute", "value"),
    [
        ("flow_logs.idle.tcp=300s", "flow_logs.idle.tcp", 300.0),
        ("flow_logs.idle.tcp = 300", "flow_logs.idle.tcp", 300.0),
        ("gateway.listen=0", "gateway.listen", 0),
        ("gateway.name=exit 2", "gateway.name", "exit 2"),
        ('gateway.name="7"', "gateway.name", "7"),
        ('gateway.dns=["9.9.9.9"]', "gateway.dns", ("9.9.9.9",)),
        ("nat.mode=none", "nat.mode", "none"),
        ("limits={shutdown_timeout = 3}", "limits.shutdown_timeout", 3.0),
    ],
)
def test_any_key_can_be_set(tmp_path: Path, override: str, attribute: str, value: object) -> None:
    """A value is TOML, or else the text it is; tables that are not in the file are made."""
    found: object = load(write_config(tmp_path), [override])
    for part in attribute.split("."):
        found = getattr(found, part)
    assert found == value


def test_entries_of_lists_and_the_last_one_wins(tmp_path: Path) -> None:
    """Positions are named as errors name them; of two overrides for a key the later counts."""
    path = write_config(tmp_path, GATEWAY + peer_table("a", "100.64.0.2/32"))
    config = load(path, ["peers[0].name=b", "peers[0].name=c", "gateway.addresses[1]=fd00:7::1/64"])
    assert config.peers[0].name == "c"
    assert config.gateway.addresses == ("100.64.0.1/16", "fd00:7::1/64")


def test_errors_name_the_override_they_come_from(tmp_path: Path) -> None:
    """What an override does wrong is told as its own, together with the file's errors."""
    path = write_config(tmp_path, GATEWAY + "lisen = 5\n")
    overrides = (
        "gateway.mtu=5",
        "flow_logs.idle.tcpp=300s",
        "nonsense",
        "gateway.name.x=1",
        "peers[0].name=x",
        "gateway.addresses[9]=x",
        "gateway[0]=x",
    )
    assert errors_of(path, overrides) == [
        "--set nonsense: should be a key and a value, such as flow_logs.idle.tcp=300s",
        "--set gateway.name.x=1: gateway.name.x: gateway.name is not a table",
        "--set peers[0].name=x: peers[0].name: there is no peers",
        "--set gateway.addresses[9]=x: gateway.addresses[9]: gateway.addresses has 2 entries, counted from 0",
        "--set gateway[0]=x: gateway[0]: gateway is not a list",
        "--set gateway.mtu=5: gateway.mtu: should be at least 1280, not 5",
        '--set flow_logs.idle.tcpp=300s: flow_logs.idle.tcpp: is not known; did you mean "tcp"?',
        'gateway.toml:6: gateway.lisen: is not known; did you mean "listen"?',
    ]


def test_a_value_cannot_bring_further_keys(tmp_path: Path) -> None:
    """A line end in a value is part of a text, not the start of another key."""
    assert errors_of(write_config(tmp_path), ("gateway.mtu=1400\nx = 1",)) == [
        r'--set gateway.mtu=1400\nx = 1: gateway.mtu: should be a whole number, not "1400\nx = 1"'
    ]


class TestFlowLogsAlone:
    """Overrides where no configuration is read: captures have limits too."""

    def test_keys_of_flow_logs_can_be_set(self) -> None:
        """What is not set has its default; a second override of a table adds to the first."""
        flow_logs = load_flow_logs(["flow_logs.idle.tcp=300s", "flow_logs.idle.udp=5", "flow_logs.open_after=0"])
        assert (flow_logs.idle.tcp, flow_logs.idle.udp, flow_logs.idle.icmp) == (300.0, 5.0, 30.0)
        assert (flow_logs.open_after, flow_logs.update_every) == (0.0, 60.0)

    def test_they_go_on_top_of_a_configurations_own(self, tmp_path: Path) -> None:
        """Tables are joined key by key."""
        text = GATEWAY + "[flow_logs]\nmax_flows = 7\n[flow_logs.idle]\nudp = 3\n"
        base = load(write_config(tmp_path, text)).flow_logs
        flow_logs = load_flow_logs(["flow_logs.idle.tcp=300s"], base)
        assert (flow_logs.max_flows, flow_logs.idle.udp, flow_logs.idle.tcp) == (7, 3.0, 300.0)

    @pytest.mark.parametrize(
        ("override", "message"),
        [
            ("flow_log.idle.tcp=1", 'flow_log.idle.tcp: is not known; did you mean "flow_logs"?'),
            ("flow_logs.idle.tpc=1", 'flow_logs.idle.tpc: is not known; did you mean "tcp"?'),
            ("nat.mode=none", "nat.mode: needs a configuration: without one there are the keys of flow_logs alone"),
            ("zzz=1", "zzz: is not known"),
            ("flow_logs.idle=5", "flow_logs.idle: should be one table, [flow_logs.idle], not a number"),
            ("flow_logs.max_flows_per_peer=2000000", "flow_logs.max_flows_per_peer: is more than max_flows (1000000)"),
            ("nonsense", "should be a key and a value, such as flow_logs.idle.tcp=300s"),
        ],
    )
    def test_what_cannot_be_set_names_the_override(self, override: str, message: str) -> None:
        """One line that begins with the override, and the nearest key where there is one."""
        with pytest.raises(ConfigErrors) as caught:
            load_flow_logs([override])
        assert str(caught.value) == f"--set {override}: {message}"
