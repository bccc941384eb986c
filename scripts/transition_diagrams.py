"""The transitions of members as diagrams, drawn from the tables of `roost.core.transitions`.

    python -m scripts.transition_diagrams            # to look at
    python -m scripts.transition_diagrams --write    # into docs/membership.md

Moves between the same two standings share an arrow. A move that leads nowhere else is not drawn, since it would hide
those that do; the tables have it. Whoever is forgotten is no longer there, so that is an end and no standing.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from roost.core.transitions import OTHERS, OWN, Trigger
from scripts.docs_block import write_block

__all__ = ["BLOCK", "DOCUMENT", "main", "transition_diagrams"]

BLOCK = "transitions"
DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "membership.md"
END = "[*]"
STRANGERS = ("alive", "suspect")
"""In which standing a member can be entered that was not known."""
NEWBORN = ("joining",)

Row = TypeVar("Row", bound=str)


def transition_diagrams() -> str:
    """Both tables as Mermaid, which GitHub draws."""
    others, own = _diagram(OTHERS, STRANGERS), _diagram(OWN, NEWBORN)
    return "\n".join(["Another member, to this node:", "", *others, "", "The own state:", "", *own]) + "\n"


def _diagram(table: Mapping[Row, Mapping[Trigger, Row]], starts: Sequence[str]) -> list[str]:
    lines = ["```mermaid", "stateDiagram-v2", *(f"    {END} --> {start}" for start in starts)]
    for row, moves in table.items():
        arrows: dict[str, list[str]] = {}
        for trigger, after in moves.items():
            if after != row:
                arrows.setdefault(END if after == "forgotten" else after, []).append(trigger)
        lines += [f"    {row} --> {after}: {', '.join(triggers)}" for after, triggers in arrows.items()]
    return [*lines, "```"]


def main(arguments: Sequence[str]) -> int:
    """Print, or write."""
    if arguments == ["--write"]:
        write_block(DOCUMENT, BLOCK, transition_diagrams())
    elif arguments:
        print(__doc__)
        return 2
    else:
        print(transition_diagrams(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
