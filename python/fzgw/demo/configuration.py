"""The gateway's configuration as a user would write it, and the keys of the run."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path

from fzgw import _core
from fzgw.demo import plan


@dataclass(frozen=True)
class Keys:
    """The raw 32-byte keys of one run: `clients` are private keys by name."""

    gateway: bytes
    clients: dict[str, bytes]


def generate_keys() -> Keys:
    """Fresh keys for the gateway and every client of the plan."""
    return Keys(
        gateway=_core.generate_private_key(),
        clients={client.name: _core.generate_private_key() for client in plan.CLIENTS},
    )


def write(directory: Path, keys: Keys) -> Path:
    """Write gateway.toml and its key into `directory`; returns the path of gateway.toml."""
    key_file = directory / "gateway.key"
    key_file.touch(mode=0o600)
    key_file.write_text(_text(keys.gateway) + "\n")
    path = directory / "gateway.toml"
    path.write_text(_gateway(directory) + "".join(_peer(client, keys) for client in plan.CLIENTS) + _RULES)
    return path


def _gateway(directory: Path) -> str:
    return f"""\
[gateway]
name = "demo"
private_key_file = "gateway.key"
listen = {plan.LISTEN_PORT}
interface = "{plan.INTERFACE}"
addresses = ["{plan.GATEWAY_TUNNEL}/{plan.TUNNEL_PREFIX}"]
state_dir = {json.dumps(str(directory / "state"))}

[nat]
mode = "masquerade"

# Short, so that flows without an end of their own show theirs while the demo still runs.
[flow_logs]
close_delay = "500ms"
[flow_logs.idle]
udp = "2s"
icmp = "2s"

"""


def _peer(client: plan.ClientPlan, keys: Keys) -> str:
    return f"""\
[[peers]]
name = "{client.name}"
user = "{client.user}"
groups = ["{client.group}"]
public_key = "{_text(_core.public_key(keys.clients[client.name]))}"
allowed_ips = ["{client.tunnel}/32"]

"""


_RULES = f"""\
[[resources]]
name = "files"
addresses = ["{plan.SERVER}/32"]
ports = ["tcp/{plan.UPLOAD_PORT}-{plan.DOWNLOAD_PORT}", "icmp"]
domain = "{plan.SERVER_DOMAIN}"

[[resources]]
name = "resolver"
addresses = ["{plan.SERVER}/32"]
ports = ["udp/{plan.DNS_PORT}"]

[[resources]]
name = "echo"
addresses = ["{plan.SERVER}/32"]
ports = ["udp/{plan.ECHO_PORT}"]

[[rules]]
name = "everybody"
resources = ["files", "resolver"]

[[rules]]
name = "contractors"
groups = ["contractors"]
resources = ["echo"]
"""


def _text(key: bytes) -> str:
    return base64.b64encode(key).decode("ascii")
