"""From a file to a `Config`: everything that is wrong is found in one pass and told in the order of the file."""

import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from fzgw.config import values
from fzgw.config.crosscheck import crosscheck, flow_limits
from fzgw.config.document import Document
from fzgw.config.errors import ConfigErrors, ConfigProblem, KeyPath, dotted
from fzgw.config.identity import uid_for
from fzgw.config.keyfiles import KeyFiles
from fzgw.config.models import Config, FlowLogsConfig, FlowLogsOnly
from fzgw.config.nearest import nearest, quoted

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Reads the configuration at `path`, with `overrides` such as ``"flow_logs.idle.tcp=300s"`` (a TOML value, else
    text) on top of it.

    Raises ConfigErrors with everything that is wrong. Writes nothing.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ConfigErrors([_unreadable(path, "there is no such file; `fzgw init` writes one")]) from None
    except OSError as error:
        raise ConfigErrors([_unreadable(path, f"cannot be read: {error.strerror}")]) from None
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigErrors([ConfigProblem(str(path), line, "", "TOML syntax: is not UTF-8")]) from None
    return load_text(text, path, overrides)


def load_text(text: str, path: Path, overrides: Sequence[str] = ()) -> Config:
    """`load` for a text that is, or is to become, the file at `path`."""
    document = Document(text, path, overrides)
    files = KeyFiles(path.parent)
    problems = list(document.problems)
    config: Config | None = None
    try:
        config = Config.model_validate(document.data, context=files)
    except ValidationError as invalid:
        problems.extend(_translated(invalid, document))
    problems.extend(crosscheck(document, files))
    problems.sort(key=lambda problem: problem.line or 0)
    errors = [problem for problem in problems if problem.level == "error"]
    if errors or config is None:
        raise ConfigErrors(errors)
    return _completed(config, path, problems)


def load_flow_logs(overrides: Sequence[str], base: FlowLogsConfig | None = None) -> FlowLogsConfig:
    """The table [flow_logs] where no file is read: `base` (None: the defaults), with `overrides` as `load` has them.

    Raises ConfigErrors with everything that is wrong, and for every key of another table.
    """
    document = Document("", Path("configuration"), overrides)
    problems = [*document.problems, *_not_flow_logs(document)]
    given = document.data.get("flow_logs", {})
    document.data = {"flow_logs": given if base is None else _merged(base.model_dump(), given)}
    loaded: FlowLogsConfig | None = None
    try:
        loaded = FlowLogsOnly.model_validate(document.data).flow_logs
    except ValidationError as invalid:
        problems.extend(_translated(invalid, document))
    problems.extend(flow_limits(document))
    if problems or loaded is None:
        raise ConfigErrors(problems)
    return loaded


def _not_flow_logs(document: Document) -> Iterator[ConfigProblem]:
    for key in document.overridden:
        table = str(key[0])
        if table == "flow_logs":
            continue
        if table in Config.model_fields:
            yield document.problem(key, "needs a configuration: without one there are the keys of flow_logs alone")
        else:
            close = nearest(table, Config.model_fields)
            yield document.problem(key, "is not known" + (f'; did you mean "{close}"?' if close else ""))


def _merged(base: dict[str, Any], given: Any) -> Any:
    """`given` on top of `base`, table by table."""
    if not isinstance(given, dict):
        return given
    inner = {
        key: _merged(base[key], value) if isinstance(base.get(key), dict) else value for key, value in given.items()
    }
    return {**base, **inner}


def _completed(config: Config, path: Path, warnings: Sequence[ConfigProblem]) -> Config:
    """Adds what is not in the file."""
    from fzgw._core import public_key

    config._path = path
    config._warnings = tuple(warnings)
    gateway = config.gateway
    gateway._public_key = public_key(gateway.private_key)
    gateway._uid = uid_for(gateway._public_key, gateway.state_dir)
    return config


def _unreadable(path: Path, message: str) -> ConfigProblem:
    return ConfigProblem(str(path), None, "", message)


def _translated(invalid: ValidationError, document: Document) -> Iterator[ConfigProblem]:
    """pydantic's errors as sentences about the file."""
    errors = invalid.errors(include_url=False)
    unknown_sinks = {error["loc"][:2] for error in errors if error["type"] == "literal_error"}
    for error in errors:
        # A default that depends on a value that is wrong: that one is told.
        if error["type"] == "default_factory_not_called":
            continue
        # The keys of a sink whose type is unknown cannot be judged.
        if error["type"] == "extra_forbidden" and error["loc"][:2] in unknown_sinks and error["loc"][0] == "sinks":
            continue
        yield document.problem(error["loc"], _sentence(error))


def _sentence(error: "ErrorDetails") -> str:
    kind = error["type"]
    context: dict[str, Any] = error.get("ctx", {})
    got = values.kind(error["input"])
    match kind:
        case "value_error":
            return str(context["error"])
        case "missing":
            return f"is missing{_purpose(error['loc'])}"
        case "extra_forbidden":
            return _unknown_key(error["loc"])
        case "string_type":
            return f"should be text in quotes, not {got}"
        case "int_type" | "int_from_float":
            return f"should be a whole number, not {_shown(error['input'])}"
        case "bool_type":
            return f"should be true or false, not {got}"
        case "tuple_type":
            return f"should be {_list_form(error['loc'])}, not {got}"
        case "model_type" | "model_attributes_type":
            return f"should be {_table_form(error['loc'])}, not {got}"
        case "literal_error":
            return f"should be {_choices(error)}, not {_shown(error['input'])}"
        case "too_short":
            return "should not be empty"
        case "greater_than":
            return f"should be more than {context['gt']:g}"
        case "greater_than_equal":
            return f"should be at least {context['ge']}, not {error['input']}"
        case "less_than_equal":
            return f"should be at most {context['le']}, not {error['input']}"
        case _:
            return error["msg"]


def _shown(value: object) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    return str(value) if isinstance(value, float) else values.kind(value)


def _choices(error: "ErrorDetails") -> str:
    field = _field_of(error["loc"])
    return quoted(typing.get_args(field)) if field is not None else str(error["ctx"]["expected"])


def _list_form(loc: KeyPath) -> str:
    return f"a list of tables, each under [[{dotted(loc)}]]" if len(loc) == 1 else 'a list such as ["one", "two"]'


def _table_form(loc: KeyPath) -> str:
    return "a table" if any(isinstance(part, int) for part in loc) else f"one table, [{dotted(loc)}]"


_PURPOSES = {
    "private_key_file": "the path of the gateway's key (`fzgw init` makes one)",
    "public_key": "the peer's WireGuard public key",
    "allowed_ips": 'the addresses the peer may use, such as ["100.64.0.2/32"]',
    "name": "what records call it",
    "load": 'what to load, such as "handlers.py:Night"',
    "type": 'the kind of sink, such as "stdout"',
}


def _purpose(loc: KeyPath) -> str:
    if loc == ("gateway", "addresses"):
        return ': the gateway\'s own tunnel addresses, such as ["100.64.0.1/16"]'
    if loc == ("gateway",):
        return ": the table [gateway] has to be there"
    purpose = _PURPOSES.get(str(loc[-1]))
    return f": {purpose}" if purpose else ""


def _unknown_key(loc: KeyPath) -> str:
    name = str(loc[-1])
    table = _model_at(loc[:-1])
    known = _keys(table)
    close = nearest(name, known)
    if close is not None:
        return f'is not known; did you mean "{close}"?'
    elsewhere = [dotted(path) for path, model in _tables() if name in _keys(model)]
    if elsewhere:
        return f"is not known here; it belongs in [{elsewhere[0]}]"
    return f"is not known; known here: {', '.join(known)}"


def _keys(model: type[BaseModel]) -> list[str]:
    return [str(field.validation_alias or name) for name, field in model.model_fields.items()]


def _model_at(loc: KeyPath) -> type[BaseModel]:
    model: type[BaseModel] = Config
    for part in loc:
        if isinstance(part, str):
            inner = model_in(model.model_fields[part].annotation)
            if inner is None:
                break
            model = inner
    return model


def model_in(annotation: Any) -> type[BaseModel] | None:
    """The table a field holds, or holds a list of."""
    for candidate in (annotation, *typing.get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _field_of(loc: KeyPath) -> Any:
    field = _model_at(loc[:-1]).model_fields.get(str(loc[-1]))
    return None if field is None else field.annotation


def _tables(model: type[BaseModel] = Config, path: KeyPath = ()) -> Iterator[tuple[KeyPath, type[BaseModel]]]:
    """Every table below `model`, with its path."""
    for name, field in model.model_fields.items():
        inner = model_in(field.annotation)
        if inner is not None:
            yield (*path, name), inner
            yield from _tables(inner, (*path, name))
