"""The lines of a configuration's keys, as error messages show them."""

import tomllib

import pytest

from fzgw._core import toml_lines

DOCUMENT = """\
# a comment
[gateway]
name = "exit-1"
addresses = [
    "100.64.0.1/16",
    "fd00:64::1/64",
]

[flow_logs.idle]
tcp = "1200s"

[flow_logs]
open_after = "5s"

[[peers]]
name = "über"
note = \"\"\"
two
lines\"\"\"
[[peers]]
name = "b"
nested.key = 1
inline = { a = 1, b = [ { c = 2 } ] }
"""


def test_every_key_has_its_line():
    """Tables, array elements, dotted and inline keys are all found, a table at its own header."""
    assert toml_lines(DOCUMENT) == {
        ("gateway",): 2,
        ("gateway", "name"): 3,
        ("gateway", "addresses"): 4,
        ("gateway", "addresses", 0): 5,
        ("gateway", "addresses", 1): 6,
        ("flow_logs",): 12,
        ("flow_logs", "idle"): 9,
        ("flow_logs", "idle", "tcp"): 10,
        ("flow_logs", "open_after"): 13,
        ("peers",): 15,
        ("peers", 0): 15,
        ("peers", 0, "name"): 16,
        ("peers", 0, "note"): 17,
        ("peers", 1): 20,
        ("peers", 1, "name"): 21,
        ("peers", 1, "nested"): 22,
        ("peers", 1, "nested", "key"): 22,
        ("peers", 1, "inline"): 23,
        ("peers", 1, "inline", "a"): 23,
        ("peers", 1, "inline", "b"): 23,
        ("peers", 1, "inline", "b", 0): 23,
        ("peers", 1, "inline", "b", 0, "c"): 23,
    }


def test_a_table_named_by_its_children_alone_has_the_line_of_the_first():
    """Nothing that tomllib returns is without a line."""
    assert toml_lines("[a.b]\n[a.c]\n") == {("a",): 1, ("a", "b"): 1, ("a", "c"): 2}


@pytest.mark.parametrize("text", ["", "\n", "# only a comment", "\ufeffa = 1", "a = 1\r\nb = 2\r\n"])
def test_small_documents(text: str):
    """Empty texts have no keys; a byte order mark and Windows line ends do not move a line."""
    lines = toml_lines(text)
    assert lines in ({}, {("a",): 1}, {("a",): 1, ("b",): 2})
    assert len(lines) == text.count("=")


@pytest.mark.parametrize(
    ("text", "line"),
    [("a = 1\na = 2\n", 2), ("a = 1\n\n[b\n", 3), ("a = 1\nb =", 2), ("a = [\n1,\n", 2), ("[a]\nx = 1\n[a]\n", 3)],
)
def test_bad_toml_is_an_error_with_its_line(text: str, line: int):
    """What tomllib refuses raises ValueError, which says on which line it went wrong."""
    with pytest.raises(tomllib.TOMLDecodeError):
        tomllib.loads(text)
    with pytest.raises(ValueError, match=f"^line {line}: "):
        toml_lines(text)
