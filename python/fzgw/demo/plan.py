"""Who has which address and port in the laboratory.

```
laptop  192.0.2.2 ──────── 192.0.2.1 ┐
                                     ├ gateway ┬ 203.0.113.1 ──── 203.0.113.10 server
phone   198.51.100.2, ── 198.51.100.1┘         │
        later 198.51.100.77          tunnel 100.64.0.1/24
```

All of it exists in namespaces of the run alone, so the documentation networks can be used on any machine. The server
has no route into the tunnel: that its answers arrive shows the masquerade.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class ClientPlan:
    """A client: `underlay` and `roams_to` are its outer addresses, `tunnel` the inner one."""

    name: str
    user: str
    group: str
    tunnel: str
    underlay: str
    gateway_underlay: str
    roams_to: str | None = None


LAPTOP: Final = ClientPlan(
    name="laptop",
    user="alice",
    group="engineering",
    tunnel="100.64.0.2",
    underlay="192.0.2.2",
    gateway_underlay="192.0.2.1",
)
PHONE: Final = ClientPlan(
    name="phone",
    user="bob",
    group="contractors",
    tunnel="100.64.0.3",
    underlay="198.51.100.2",
    gateway_underlay="198.51.100.1",
    roams_to="198.51.100.77",
)
CLIENTS: Final = (LAPTOP, PHONE)

UNDERLAY_PREFIX: Final = 24
GATEWAY_TUNNEL: Final = "100.64.0.1"
TUNNEL_PREFIX: Final = 24
LISTEN_PORT: Final = 51820
INTERFACE: Final = "fzgw0"

SERVER: Final = "203.0.113.10"
SERVER_GATEWAY: Final = "203.0.113.1"
SERVER_DOMAIN: Final = "files.example"

UPLOAD_PORT: Final = 8001
DOWNLOAD_PORT: Final = 8002
DNS_PORT: Final = 53
ECHO_PORT: Final = 7
DENIED_PORT: Final = 22
