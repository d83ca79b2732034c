"""The configuration: one TOML file in, one frozen `Config` out, or every error at once.

The walk of `load`:

1. `document` reads the file, applies `--set` overrides, and remembers the line (or override) each value came from;
2. `models` says what each table may hold; its fields use the small parsers of `values` (one value, one plain
   sentence when it is wrong) and `keyfiles` (keys are read while validating, so a bad key file is one error of many);
3. `crosscheck` looks at what spans tables: duplicates, references of rules, routes;
4. `loading` translates what was found into sentences and puts it in the order of the file.

`edit` changes the text of a configuration without touching the rest of it, `addresses` picks free addresses in it,
`identity` keeps the gateway's uid.
"""

from fzgw.config.errors import ConfigErrors, ConfigProblem
from fzgw.config.identity import keep_uid
from fzgw.config.loading import load, load_flow_logs, load_text
from fzgw.config.models import (
    Config,
    FlowLogsConfig,
    GatewayConfig,
    HandlerConfig,
    IdleConfig,
    LimitsConfig,
    NatConfig,
    PeerConfig,
    ResourceConfig,
    RuleConfig,
    SinkConfig,
)

__all__ = [
    "Config",
    "ConfigErrors",
    "ConfigProblem",
    "FlowLogsConfig",
    "GatewayConfig",
    "HandlerConfig",
    "IdleConfig",
    "LimitsConfig",
    "NatConfig",
    "PeerConfig",
    "ResourceConfig",
    "RuleConfig",
    "SinkConfig",
    "keep_uid",
    "load",
    "load_flow_logs",
    "load_text",
]
