"""Free tunnel addresses for new peers."""

from pathlib import Path

import pytest

from config_files import GATEWAY, peer_table, write_config
from fzgw.config import load
from fzgw.config.addresses import NoFreeAddressError, next_free


def free(directory: Path, addresses: str, *taken: str) -> list[str]:
    """The next free addresses of a gateway with `addresses` (as TOML) and one peer that holds `taken`."""
    text = GATEWAY.replace('["100.64.0.1/16", "fd00:64::1/64"]', addresses)
    text += peer_table("a", *taken) if taken else ""
    return next_free(load(write_config(directory, text)))


def test_the_first_peer_comes_behind_the_gateway(tmp_path: Path) -> None:
    """One address of each network, without the network's own and the gateway's."""
    assert free(tmp_path, '["100.64.0.1/16", "fd00:64::1/64"]') == ["100.64.0.2/32", "fd00:64::2/128"]


def test_gaps_are_filled_first(tmp_path: Path) -> None:
    """The lowest address that no prefix of a peer holds is taken, before, between and behind them."""
    assert free(tmp_path, '["10.0.0.9/24"]', "10.0.0.2/32", "10.0.0.1/32", "10.0.0.4/30") == ["10.0.0.3/32"]
    assert free(tmp_path, '["10.0.0.1/24"]', "10.0.0.2/31", "10.0.0.4/30", "10.0.0.0/30") == ["10.0.0.8/32"]
    assert free(tmp_path, '["10.0.0.9/24"]', "10.0.0.2/32") == ["10.0.0.1/32"]


def test_prefixes_of_other_networks_take_nothing(tmp_path: Path) -> None:
    """Allowed IPs outside the network, of either family, leave it as it is."""
    assert free(tmp_path, '["10.0.0.1/24"]', "9.0.0.0/8", "10.0.1.0/24", "::/0") == ["10.0.0.2/32"]


def test_the_broadcast_address_is_not_given_away(tmp_path: Path) -> None:
    """In a /30 the gateway leaves room for one peer; then it is full."""
    assert free(tmp_path, '["10.0.0.1/30"]') == ["10.0.0.2/32"]
    with pytest.raises(NoFreeAddressError, match=r"^10\.0\.0\.0/30 has no free address left$"):
        free(tmp_path, '["10.0.0.1/30"]', "10.0.0.2/32")


def test_small_networks(tmp_path: Path) -> None:
    """A /31 and a /127 have two usable addresses; a /32 is the gateway's alone."""
    assert free(tmp_path, '["10.0.0.0/31", "fd00::1/127"]') == ["10.0.0.1/32", "fd00::/128"]
    with pytest.raises(NoFreeAddressError, match=r"10\.0\.0\.1/32"):
        free(tmp_path, '["10.0.0.1/32"]')


def test_a_network_that_a_peer_holds_whole_is_full(tmp_path: Path) -> None:
    """A peer with a prefix around the network leaves nothing, in IPv6 too, and this is found at once."""
    with pytest.raises(NoFreeAddressError, match="fd00:64::/64"):
        free(tmp_path, '["fd00:64::1/64"]', "fd00::/16")


def test_two_addresses_in_one_network_give_one(tmp_path: Path) -> None:
    """A gateway with two addresses of a network gives a peer one."""
    assert free(tmp_path, '["10.0.0.1/24", "10.0.0.2/24"]') == ["10.0.0.3/32"]
