"""What the host must do for the gateway: link, routes, forwarding, NAT. Set at start, put back at stop.

The walk. The engine opens the TUN device; then `HostSetup.apply` turns the configuration into a `HostPlan`
(`plan.py`: addresses, routes, NAT sources), notes in the state file what it is about to change (`state.py`), puts the
masquerade table in place (`nat.py`), sets the link up by netlink (`link.py`) and switches forwarding on last
(`sysctl.py`), when everything that forwarded packets meet is there. `HostSetup.update` moves to a new configuration
by differences, `HostSetup.remove` goes back the same way: link, forwarding, table, state file.

What a killed run left is found in the state file by the next `apply`, and the values from before that run are the
ones that come back in the end.

`check` (`findings.py`) looks at the host without changing it and says what would keep a gateway from working;
`forward.py` reads the host's own firewall for it. `presence.py` tells gateways on one host of each other.

Everything here acts on the network namespace of the calling thread.
"""

from fzgw.host.errors import HostError, PrivilegeError
from fzgw.host.findings import Finding, check
from fzgw.host.setup import HostSetup

__all__ = ["Finding", "HostError", "HostSetup", "PrivilegeError", "check"]
