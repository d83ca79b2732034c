"""``fzgw check``: is the configuration right, what would the gateway do, and does this host let it?"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fzgw.cli.errors import ExitCode
from fzgw.cli.options import config_argument, json_option, set_option
from fzgw.config.values import key_text

if TYPE_CHECKING:
    from fzgw.config import Config, ConfigProblem
    from fzgw.config.models import RuleConfig
    from fzgw.host import Finding


@click.command
@config_argument
@set_option
@json_option
@click.pass_context
def check(ctx: click.Context, config: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Check a configuration and this host, and say what the gateway would do.

    CONFIG is gateway.toml unless given. Exit code 3: the configuration is wrong; 1: the host is in the way.
    """
    import fzgw.host
    from fzgw.config import ConfigErrors, load

    try:
        loaded = load(config, overrides)
    except ConfigErrors as errors:
        if not as_json:
            raise
        click.echo(_json({"ok": False, "file": str(config), "errors": _problems(errors.errors)}))
        ctx.exit(ExitCode.CONFIGURATION)
    findings = fzgw.host.check(loaded)
    failed = any(finding.level == "error" for finding in findings)
    if as_json:
        click.echo(_json({"ok": not failed, "file": str(config), "errors": [], **_described(loaded, findings)}))
    else:
        _tell(loaded, findings)
    ctx.exit(ExitCode.FAILED if failed else ExitCode.FINE)


def _tell(config: "Config", findings: Sequence["Finding"]) -> None:
    from fzgw.cli.peer.table import show_peers

    gateway, flow_logs = config.gateway, config.flow_logs
    port = str(gateway.listen) if gateway.listen else "(any free one)"
    lines = [
        ("gateway", f"{gateway.name}, uid {gateway.uid}"),
        ("public key", key_text(gateway.public_key)),
        ("listens on", f"UDP port {port}, IPv4 and IPv6"),
        ("clients use", gateway.endpoint or "no endpoint is set: `fzgw peer add` needs one"),
        ("interface", f"{gateway.interface}, MTU {gateway.mtu}, {', '.join(gateway.addresses)}"),
        ("DNS", ", ".join(gateway.dns) or "none for clients"),
        ("NAT", _nat(config)),
        ("flow logs", _flow_logs(config)),
        ("flow table", f"{flow_logs.max_flows:,} flows, of one peer {_per_peer(config)}"),
        ("handlers", ", ".join(handler.load for handler in config.handlers) or "none"),
        ("state", str(gateway.state_dir)),
    ]
    for label, text in lines:
        click.echo(f"{label:<12} {text}")
    click.echo(
        f"\nrules: {'none, everything is allowed' if not config.rules else 'what none of them allows is denied'}"
    )
    for rule in config.rules:
        click.echo(f"  {rule.name}: {_rule(config, rule)}")
    count = len(config.peers)
    click.echo(f"\npeers: {count or 'none yet, `fzgw peer add NAME` makes one'}")
    if count:
        show_peers(config.peers)
    for problem in config.warnings:
        colour = "yellow" if problem.level == "warning" else None
        click.echo(click.style(f"{problem.level}: ", fg=colour) + str(problem), err=True)
    for finding in findings:
        click.echo(click.style(f"{finding.level}: ", fg=_COLOURS[finding.level]) + finding.message, err=True)
        if finding.fix:
            click.echo(f"  fix: {finding.fix}", err=True)


_COLOURS = {"error": "red", "warning": "yellow"}


def _nat(config: "Config") -> str:
    if config.nat.mode == "none":
        return "none: packets leave with the peer's tunnel address"
    return f"masquerade: what leaves by another interface than {config.gateway.interface} gets the host's address"


def _flow_logs(config: "Config") -> str:
    if not config.sinks and not config.handlers:
        return "off: no sink and no handler"
    return f"to {', '.join(sink.type for sink in config.sinks)}" if config.sinks else "to the handlers alone"


def _per_peer(config: "Config") -> str:
    limit = config.flow_logs.max_flows_per_peer
    if limit is not None:
        return f"at most {limit:,}"
    if len(config.peers) <= 1:
        return "up to all"
    return f"at most {max(1, config.flow_logs.max_flows // 8):,}"


def _rule(config: "Config", rule: "RuleConfig") -> str:
    who = [f"{kind} {name}" for kind, names in _subjects(rule) for name in names]
    count = _matching(config, rule)
    peers = f"{', '.join(who)} ({count} peer{'' if count == 1 else 's'})" if who else "every peer"
    resources = {resource.name: resource for resource in config.resources}
    what = [
        f"{name} ({', '.join((*resources[name].addresses, *(resources[name].ports or ('any port',))))})"
        for name in rule.resources
    ]
    destination = ", ".join(what) if what else "any destination"
    return f"{peers} -> {destination}" if rule.direction == "outbound" else f"from outside -> {peers}: {destination}"


def _subjects(rule: "RuleConfig") -> list[tuple[str, tuple[str, ...]]]:
    return [("group", rule.groups), ("user", rule.users), ("peer", rule.peers)]


def _matching(config: "Config", rule: "RuleConfig") -> int:
    return sum(
        peer.name in rule.peers or peer.user in rule.users or not set(peer.groups).isdisjoint(rule.groups)
        for peer in config.peers
    )


def _described(config: "Config", findings: Sequence["Finding"]) -> dict[str, Any]:
    """The configuration in use, secrets left out, defaults filled in."""
    from fzgw.cli.peer.table import peer_as_json

    gateway = config.gateway.model_dump(mode="json", exclude={"private_key"})
    gateway |= {"uid": config.gateway.uid, "public_key": key_text(config.gateway.public_key)}
    others = config.model_dump(mode="json", exclude={"gateway", "peers"})
    return {
        "warnings": _problems(config.warnings),
        "findings": [{"level": finding.level, "message": finding.message, "fix": finding.fix} for finding in findings],
        "gateway": gateway,
        **others,
        "peers": [peer_as_json(peer) for peer in config.peers],
    }


def _problems(problems: Sequence["ConfigProblem"]) -> list[dict[str, Any]]:
    return [
        {
            "level": problem.level,
            "file": problem.file,
            "line": problem.line,
            "key": problem.key,
            "message": problem.message,
        }
        for problem in problems
    ]


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)
