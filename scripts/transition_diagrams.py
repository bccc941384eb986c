"""The transitions of members and of roles as diagrams, drawn from the tables of the code.

    python -m scripts.transition_diagrams            # to look at
    python -m scripts.transition_diagrams --write    # into docs/membership.md and docs/rights.md

Of members: moves between the same two standings share an arrow. A move that leads nowhere else is not drawn, since it
would hide those that do; the tables have it. Whoever is forgotten is no longer there: that is an end and no standing.

Of roles: those between the three roles that neither execute nor claim have a diagram of their own. Mermaid ends a text
at a colon or a semicolon, so both are drawn as commas.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from roost.core.tenure import TRANSITIONS, Role
from roost.core.transitions import OTHERS, OWN, Trigger
from scripts.docs_block import write_block

__all__ = ["BLOCKS", "END", "main", "role_diagrams", "transition_diagrams"]

DOCS = Path(__file__).resolve().parent.parent / "docs"
END = "[*]"
STRANGERS = ("alive", "suspect")
"""In which standing a member can be entered that was not known."""
NEWBORN = ("joining",)
RESTING = (Role.ABSENT, Role.COPY, Role.AWAITING)

Row = TypeVar("Row", bound=str)


def transition_diagrams() -> str:
    """Both tables of members as Mermaid, which GitHub draws."""
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


def role_diagrams() -> str:
    """The table of roles."""
    resting = [pair for pair in TRANSITIONS if set(pair) <= set(RESTING)]
    acting = [pair for pair in TRANSITIONS if pair not in resting]
    return "\n".join(
        [
            "To come to execute a partition, and to cease:",
            "",
            *_roles(acting),
            "",
            "Between the roles of who neither executes nor claims:",
            "",
            *_roles(resting, Role.ABSENT),
            "",
        ]
    )


def _roles(pairs: Sequence[tuple[Role, Role]], *starts: Role) -> list[str]:
    lines = ["```mermaid", "stateDiagram-v2", *(f"    {END} --> {start.value}" for start in starts)]
    for before, after in pairs:
        why = TRANSITIONS[before, after].replace(";", ",").replace(":", ",")
        lines.append(f"    {before.value} --> {after.value}: {why}")
    return [*lines, "```"]


BLOCKS: tuple[tuple[Path, str, Callable[[], str]], ...] = (
    (DOCS / "membership.md", "transitions", transition_diagrams),
    (DOCS / "rights.md", "roles", role_diagrams),
)
"""(document, block, what is to stand there)"""


def main(arguments: Sequence[str]) -> int:
    """Print, or write."""
    if arguments not in ([], ["--write"]):
        print(__doc__)
        return 2
    for document, block, draw in BLOCKS:
        if arguments:
            write_block(document, block, draw())
        else:
            print(draw(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
