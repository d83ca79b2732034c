"""Checks rendered lines against the published OCSF schemas, for every test that reads records.

The schemas are looked for in ``$FZGW_SHARED/ocsf`` and in ``../shared/ocsf`` beside the project; they refuse unknown
fields. Without them a line is checked for its form and its ids alone, and test_ocsf_schema.py is skipped and says so.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

_NAMES = {0: "base_event", 4001: "network_activity"}


def schema_folder() -> Path | None:
    """Where the schemas are; None where they are not to be had."""
    places = [Path(__file__).resolve().parents[2] / "shared"]
    if named := os.environ.get("FZGW_SHARED"):
        places.insert(0, Path(named))
    folders = (place / "ocsf" for place in places)
    return next((folder for folder in folders if (folder / "network_activity.schema.json").is_file()), None)


def validate(line: bytes) -> dict[str, Any]:
    """The record of one line, with or without its newline; AssertionError says what is wrong with it.

    The line is one JSON object whose keys are unique, ``type_uid`` is ``class_uid * 100 + activity_id``, and the schema
    of its class holds.
    """
    text = line.removesuffix(b"\n")
    assert b"\n" not in text, f"more than one line: {line!r}"
    record: Any = json.loads(text, object_pairs_hook=_unique)
    assert isinstance(record, dict), f"not an object: {line!r}"
    class_uid = record["class_uid"]
    assert class_uid in _NAMES, f"a class that fzgw does not write: {class_uid}"
    assert record["type_uid"] == class_uid * 100 + record["activity_id"], f"type_uid: {line!r}"
    validator = _validator(class_uid)
    if validator is not None:
        error = best_match(validator.iter_errors(record))
        assert error is None, f"{error.json_path}: {error.message} in {line!r}"
    return record


@cache
def _validator(class_uid: int) -> Draft202012Validator | None:
    folder = schema_folder()
    if folder is None:
        return None
    return Draft202012Validator(json.loads((folder / f"{_NAMES[class_uid]}.schema.json").read_bytes()))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    assert len(found) == len(pairs), f"a key twice: {[key for key, _ in pairs]}"
    return found
