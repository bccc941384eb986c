"""The diagrams of the documentation are drawn from the tables of the code, and show all of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import pytest

from roost.core.tenure import TRANSITIONS
from roost.core.transitions import OTHERS, OWN, Trigger
from scripts.docs_block import read_block, write_block
from scripts.transition_diagrams import BLOCKS, END, role_diagrams, transition_diagrams

Row = TypeVar("Row", bound=str)
ARROW = re.compile(r"    (\S+) --> (\S+): (.+)")


def drawn(diagram: str) -> set[tuple[str, str, str]]:
    """(from, to, trigger) of all arrows."""
    arrows = [match for line in diagram.splitlines() if (match := ARROW.fullmatch(line))]
    return {(arrow[1], arrow[2], trigger) for arrow in arrows for trigger in arrow[3].split(", ")}


def moves(table: Mapping[Row, Mapping[Trigger, Row]]) -> set[tuple[str, str, str]]:
    every = {(row, after, str(trigger)) for row, cells in table.items() for trigger, after in cells.items()}
    return {(row, END if after == "forgotten" else after, trigger) for row, after, trigger in every if row != after}


@pytest.mark.parametrize(("document", "block", "draw"), BLOCKS, ids=[block for _, block, _ in BLOCKS])
def test_the_documentation_shows_the_diagrams_of_the_code(document: Path, block: str, draw: Callable[[], str]) -> None:
    remedy = "drawn anew by: python -m scripts.transition_diagrams --write"
    assert read_block(document, block) == draw(), remedy


def test_the_diagrams_show_every_move_of_the_tables_and_no_other() -> None:
    others, own = transition_diagrams().split("The own state:")
    assert drawn(others) == moves(OTHERS)
    assert drawn(own) == moves(OWN)


def test_the_diagrams_of_roles_show_every_move_of_the_table_and_no_other() -> None:
    arrows = [match for line in role_diagrams().splitlines() if (match := ARROW.fullmatch(line))]
    commas = str.maketrans(":;", ",,")  # a colon or a semicolon would end the text
    expected = [(before.value, after.value, why.translate(commas)) for (before, after), why in TRANSITIONS.items()]
    assert sorted((arrow[1], arrow[2], arrow[3]) for arrow in arrows) == sorted(expected)


def test_writing_a_block_leaves_the_rest_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    page = "before\n<!-- x: begin -->\n{}<!-- x: end -->\nafter\n"
    path.write_text(page.format("old\n"))
    write_block(path, "x", "new\n")
    assert path.read_text() == page.format("new\n")
    for broken in ("", "<!-- x: begin -->\n", page.format("") * 2, "<!-- x: end -->\n<!-- x: begin -->\n"):
        path.write_text(broken)
        with pytest.raises(ValueError, match="no block"):
            write_block(path, "x", "new\n")
        assert path.read_text() == broken
