"""fzgw: a WireGuard exit node that can say who opened every flow through it.

What a handler file needs is here: `fzgw.FlowHandler`, the actions `fzgw.annotate` and `fzgw.omit`, and `fzgw.Flow` for
type hints. The same names serve programs
that run a gateway of their own: `fzgw.load_config`, then `fzgw.Gateway.start(config, flow_logs=True)` and `recv`.
`fzgw.read` gives the flows of a capture.

Everything is imported when it is first used, so that `import fzgw` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fzgw._core import Batch, Flow, Gap, Gateway, Note, Peer, StartError
    from fzgw.actions import annotate, omit
    from fzgw.config import Config, ConfigErrors
    from fzgw.config import load as load_config
    from fzgw.handlers import FlowHandler, HandlerError
    from fzgw.reading import CaptureError, read

__all__ = [
    "Batch",
    "CaptureError",
    "Config",
    "ConfigErrors",
    "Flow",
    "FlowHandler",
    "Gap",
    "Gateway",
    "HandlerError",
    "Note",
    "Peer",
    "StartError",
    "__version__",
    "annotate",
    "load_config",
    "omit",
    "read",
]

__version__: str
"""The version of the installed package."""

_HOMES = {
    "Batch": ("fzgw._core", "Batch"),
    "CaptureError": ("fzgw.reading", "CaptureError"),
    "Config": ("fzgw.config", "Config"),
    "ConfigErrors": ("fzgw.config", "ConfigErrors"),
    "Flow": ("fzgw._core", "Flow"),
    "FlowHandler": ("fzgw.handlers", "FlowHandler"),
    "Gap": ("fzgw._core", "Gap"),
    "Gateway": ("fzgw._core", "Gateway"),
    "HandlerError": ("fzgw.handlers", "HandlerError"),
    "Note": ("fzgw._core", "Note"),
    "Peer": ("fzgw._core", "Peer"),
    "StartError": ("fzgw._core", "StartError"),
    "annotate": ("fzgw.actions", "annotate"),
    "load_config": ("fzgw.config", "load"),
    "omit": ("fzgw.actions", "omit"),
    "read": ("fzgw.reading", "read"),
}
"""Where each name comes from: module, and what it is called there."""


def __getattr__(name: str) -> object:
    if name == "__version__":
        value: object = _version()
    elif name in _HOMES:
        module, attribute = _HOMES[name]
        value = getattr(import_module(module), attribute)
    else:
        raise AttributeError(f"module 'fzgw' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("fzgw")
    except PackageNotFoundError:  # run from a source tree that nothing has installed
        return "0+unknown"
