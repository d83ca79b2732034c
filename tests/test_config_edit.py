"""Peers in and out of a configuration's text: every other line stays as its writer left it."""

import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fzgw.config.edit import EditError, with_peer, without_peer

TEXT = """\
# The gateway in the cellar.
[gateway]   # the one
name    = "exit-1"

# Alice's laptop
[[peers]]
name = "laptop"          # from 2024
allowed_ips = [
    "100.64.0.2/32",
    # not yet:
    # "100.64.9.0/24",
]
# persistent_keepalive = 25

# Bob's phone
[[peers]]
name = "phone"
allowed_ips = ["100.64.0.3/32"]

# ---- Resources ----

# what everybody may reach
[[resources]]
name = "wiki"
"""


def test_a_new_peer_goes_behind_the_last_one() -> None:
    """It stands before the comments of what follows, apart from its neighbours by one empty line."""
    peer = {"name": "new", "groups": ("a", "b"), "persistent_keepalive": 25}
    assert with_peer(TEXT, peer) == TEXT.replace(
        'allowed_ips = ["100.64.0.3/32"]\n',
        'allowed_ips = ["100.64.0.3/32"]\n\n[[peers]]\nname = "new"\ngroups = ["a", "b"]\npersistent_keepalive = 25\n',
    )


def test_removing_a_peer_takes_its_own_comments_and_no_others() -> None:
    """The comment block right above a table and those inside it go with it; everything else stays."""
    assert without_peer(TEXT, 0) == TEXT[: TEXT.index("# Alice")] + TEXT[TEXT.index("# Bob") :]


def test_removing_the_last_peer_keeps_the_heading_of_the_next_section() -> None:
    """Comments behind an empty line belong to what follows."""
    assert without_peer(TEXT, 1) == TEXT[: TEXT.index("# Bob")] + TEXT[TEXT.index("# ---- Resources") :]


def test_tables_without_empty_lines_between_them() -> None:
    """A comment right above the next table is that table's, even without an empty line before it."""
    text = '[[peers]]\nname = "a"\n# Bob\n[[peers]]\nname = "b"\n# of the sink\n[[sinks]]\ntype = "stdout"\n'
    assert without_peer(text, 0) == '# Bob\n[[peers]]\nname = "b"\n# of the sink\n[[sinks]]\ntype = "stdout"\n'
    assert without_peer(text, 1) == '[[peers]]\nname = "a"\n# of the sink\n[[sinks]]\ntype = "stdout"\n'
    assert with_peer(text, {"name": "c"}) == text.replace('name = "b"\n', 'name = "b"\n\n[[peers]]\nname = "c"\n\n')


def test_peers_in_several_places() -> None:
    """TOML lets [[peers]] go on behind other tables: the last one is where new ones go, each can be removed."""
    text = '[[peers]]\nname = "a"\n\n[[sinks]]\ntype = "stdout"\n\n[[peers]]\nname = "b"\n\n[nat]\nmode = "none"\n'
    added = with_peer(text, {"name": "c"})
    assert added == text.replace('name = "b"\n', 'name = "b"\n\n[[peers]]\nname = "c"\n')
    assert without_peer(added, 0) == added.removeprefix('[[peers]]\nname = "a"\n\n')
    assert without_peer(added, 2) == text


def test_the_first_peer_goes_to_the_end() -> None:
    """Without peers there is no place but the end; a last line without an end gets one."""
    assert with_peer('[gateway]\nname = "a"', {"name": "b"}) == '[gateway]\nname = "a"\n\n[[peers]]\nname = "b"\n'
    assert with_peer("", {"name": "b"}) == '[[peers]]\nname = "b"\n'


def test_line_ends_of_windows_stay() -> None:
    """A file with CRLF gets new lines with CRLF, and no other change."""
    text = TEXT.replace("\n", "\r\n")
    added = with_peer(text, {"name": "new"})
    assert "\n" not in added.replace("\r\n", "")
    assert without_peer(added, 2) == text


def test_peers_as_one_list_are_refused() -> None:
    """What cannot be edited by lines is left alone, with what to do about it."""
    text = 'peers = [{name = "a"}, {name = "b"}]\n'
    for change in (lambda: with_peer(text, {"name": "c"}), lambda: without_peer(text, 1)):
        with pytest.raises(EditError, match=r"each as a \[\[peers\]\] table"):
            change()


def test_a_result_that_would_mean_something_else_is_refused() -> None:
    """A text over several lines whose last one looks like a comment hides the end of its table: no result then."""
    text = '[[peers]]\nname = """a\n\n# b"""\n'
    assert tomllib.loads(text)["peers"][0]["name"] == "a\n\n# b"
    with pytest.raises(EditError, match="by hand"):
        with_peer(text, {"name": "c"})


names = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=20)


@settings(max_examples=200)
@given(names, st.lists(names, max_size=3), st.integers(0, 65535))
def test_whatever_is_added_reads_back_and_can_be_removed(name: str, groups: list[str], keepalive: int) -> None:
    """For every name: the added table means what was given, and removing it restores the file byte by byte."""
    added = with_peer(TEXT, {"name": name, "groups": tuple(groups), "persistent_keepalive": keepalive})
    assert tomllib.loads(added)["peers"][2] == {"name": name, "groups": groups, "persistent_keepalive": keepalive}
    assert without_peer(added, 2) == TEXT
