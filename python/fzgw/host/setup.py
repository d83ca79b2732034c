"""Setting the host up for a running gateway, and putting it back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fzgw import logs
from fzgw.host import nat, state, sysctl
from fzgw.host.errors import HostError, PrivilegeError
from fzgw.host.link import TunnelLink, interface_exists, interface_index
from fzgw.host.plan import HostPlan, plan_for
from fzgw.host.presence import Presence

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fzgw.config import Config


class HostSetup:
    """What the host does for one gateway: link, routes, forwarding, NAT, on the TUN device `interface`.

    The device must be open when `apply` is called, in the calling thread's network namespace. Afterwards `update` may
    be called any number of times and `remove` once the engine has stopped (or before: it takes the link down first).

    A peer's allowed IPs 0.0.0.0/0 or ::/0 get no route: they say that this peer may send with any source, while a
    default route would take the host's own traffic, the tunnel's datagrams first, into the tunnel. Whoever wants it
    adds it (a client does, with a rule or a route for the gateway's endpoint beside it). Such a peer's sources outside
    the gateway's networks and the other allowed IPs are not masqueraded either.

    Of the host are changed: net.ipv4.ip_forward (with IPv4 in the tunnel), net.ipv6.conf.all.forwarding and, before
    it, accept_ra from 1 to 2 (with an IPv6 address), and the nftables table `inet fzgw-<interface>`. Each is put back
    by `remove` unless it stood right before, or somebody else moved it meanwhile, or another gateway in this network
    namespace still needs it (then the next run puts it back).
    """

    def __init__(self, config: Config, interface: str) -> None:
        """Changes nothing."""
        self._plan = plan_for(config, interface)
        self._directory = config.gateway.state_dir
        self._link = TunnelLink(interface)
        self._presence = Presence(interface)
        self._entry = state.Entry(interface)
        self._transaction: str | None = None
        self._log = logs.get_logger().bind(interface=interface)

    def apply(self) -> None:
        """Set everything up. Raises `HostError`, `PrivilegeError`, with the host as it was before."""
        interface_index(self._plan.interface)
        try:
            self._take_over()
            self._move(self._plan)
        except BaseException:
            self._take_down(self._report)
            raise
        self._log.info("host_set_up", **self._facts())

    def update(self, config: Config) -> None:
        """Move to another configuration of the same interface and state directory; what stays is not touched.

        Raises `HostError`, `PrivilegeError`, with the host as it was before the call.
        """
        before, after = self._plan, plan_for(config, self._plan.interface)
        try:
            self._move(after)
        except BaseException:
            try:
                self._move(before)
            except HostError as error:
                self._report(str(error))
            raise
        self._plan = after
        self._log.info("host_updated", **self._facts())

    def remove(self) -> None:
        """Put the host back. Does all it can before it raises `HostError` for what it could not; what a killed run
        left is put back too when `apply` was never called. After that, calling it again does nothing."""
        failures: list[str] = []
        self._take_down(failures.append)
        if failures:
            raise HostError("the host could not be put back: " + "; ".join(failures))
        self._log.info("host_restored")

    def _take_over(self) -> None:
        """Make what killed runs left our own: their switches will go back to the values from before them."""
        interface = self._plan.interface
        with state.locked(self._directory) as ledger:
            # A TUN device lives no longer than its process, and ours is held by nobody else.
            dead = [entry for name, entry in ledger.entries.items() if name == interface or not interface_exists(name)]
            left = sysctl.still_ours(change for entry in dead for change in entry.changes)
            for entry in dead:
                del ledger.entries[entry.interface]
            self._entry = ledger.entries[interface] = state.Entry(interface, changes=tuple(sysctl.in_order(left)))
            if dead:
                self._log.warning("leftover_taken_over", switches=len(left))
                self._save(ledger)
        tables = {entry.interface for entry in dead} - {interface}
        if nat.ruleset(self._plan) is None:
            tables.add(interface)  # also when the state file knows of none: it may have been lost
        for name in sorted(tables):
            nat.remove(name)

    def _move(self, plan: HostPlan) -> None:
        """From wherever the host is to `plan`. The state file comes first, forwarding last."""
        # Before the switches are looked at: from here on no other gateway puts them back.
        self._presence.announce(self._entry.families | plan.families)
        with state.locked(self._directory) as ledger:
            known = ledger.entries.get(plan.interface, self._entry)
            added = sysctl.in_order(
                change
                for family in plan.families - known.families
                for change in sysctl.forwarding_changes(family, tunnel=plan.interface)
            )
            changes = sysctl.in_order([*known.changes, *added])
            self._entry = state.Entry(plan.interface, known.families | plan.families, tuple(changes))
            ledger.entries[plan.interface] = self._entry
            self._save(ledger)
        self._set_nat(plan)
        self._link.converge(plan)
        self._set_switches(added)
        self._give_back(plan.families, self._report)

    def _set_nat(self, plan: HostPlan) -> None:
        transaction = nat.ruleset(plan)
        if transaction == self._transaction:
            return
        if transaction is None:
            nat.remove(plan.interface)
        else:
            nat.install(transaction)
        self._transaction = transaction

    def _set_switches(self, changes: Iterable[sysctl.Change]) -> None:
        for change in changes:
            try:
                sysctl.make(change)
            except PermissionError as error:
                raise PrivilegeError(f"set {sysctl.dotted(change.path)}") from error
            except OSError as error:
                raise HostError(
                    f"cannot set {sysctl.dotted(change.path)} to {change.ours} ({error.strerror}): set it before the "
                    f"gateway starts (sysctl -w {sysctl.dotted(change.path)}={change.ours}; in a container with the "
                    "option --sysctl)"
                ) from error
            if change.before != change.ours:
                self._log.info("switch_set", switch=sysctl.dotted(change.path), value=change.ours, before=change.before)

    def _give_back(self, kept: frozenset[str], report: Callable[[str], None]) -> None:
        """Put the switches of all families but `kept` back, unless another gateway needs them as they are."""
        interface = self._plan.interface
        self._presence.announce(kept)
        with state.locked(self._directory, create=False) as ledger:
            known = ledger.entries.get(interface, self._entry)
            leaving = {change.family for change in known.changes} - kept
            needed = {family: others for family in leaving if (others := self._presence.others(family))}
            for family, others in needed.items():
                self._log.warning("forwarding_left_on", family=family, needed_by=others)
            failed = dict(
                sysctl.put_back([change for change in known.changes if change.family in leaving - set(needed)])
            )
            for change, error in failed.items():
                switch = sysctl.dotted(change.path)
                fix = f"sysctl -w {switch}={change.before}"
                report(f"cannot set {switch} back to {change.before} ({error.strerror}): {fix}")
            # What stays as it is now is the next run's to put back.
            still = [change for change in known.changes if change.family in {*kept, *needed} or change in failed]
            self._entry = state.Entry(interface, known.families & kept, tuple(still))
            if kept or still:
                ledger.entries[interface] = self._entry
            else:
                ledger.entries.pop(interface, None)
            try:
                ledger.save()
            except OSError as error:
                # Where the file never held anything of ours, `_save` has said so already.
                if ledger.holds(interface):
                    report(f"cannot write {ledger.path} ({error.strerror}): remove it")

    def _take_down(self, report: Callable[[str], None]) -> None:
        """Undo everything, in the opposite order, and tell what could not be undone."""
        try:
            self._link.clear()
        except HostError as error:
            report(str(error))
        self._give_back(frozenset(), report)
        # The table outlives forwarding, so that nothing leaves the host with a tunnel source meanwhile.
        try:
            nat.remove(self._plan.interface)
        except HostError as error:
            report(str(error))
        self._transaction = None

    def _save(self, ledger: state.Ledger) -> None:
        """Write the state file. Without one nothing may be changed that a crash would leave changed."""
        try:
            ledger.save()
        except OSError as error:
            changed = [change for change in self._entry.changes if change.before != change.ours]
            if changed:
                settings = " ".join(f"{sysctl.dotted(change.path)}={change.ours}" for change in changed)
                raise HostError(
                    f"cannot write {ledger.path} ({error.strerror}), where the host's own settings are kept while the "
                    f"gateway runs: set gateway.state_dir to a folder that can be written, or make the settings "
                    f"yourself (sysctl -w {settings})"
                ) from error
            self._log.warning("state_file_not_written", path=str(ledger.path), reason=error.strerror)

    def _facts(self) -> dict[str, object]:
        plan = self._plan
        return {
            "mtu": plan.mtu,
            "routes": len(plan.routes),
            "nat": "none" if plan.nat_sources is None else "masquerade",
            "forwarding": sorted(plan.families),
            **({"without_route": len(plan.unrouted)} if plan.unrouted else {}),
        }

    def _report(self, failure: str) -> None:
        self._log.error("host_not_restored", reason=failure)
