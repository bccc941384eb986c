"""How a member's standing changes: the tables, and their text for the documentation.

Two tables, because an entry has two authors. `OTHERS` says what this node may conclude about another member, whose
standing is its health, or `left`. `OWN` says how the own state moves; each such move raises the own incarnation.
A pair that is not in a table is ignored: nothing follows from that trigger in that standing.

Invariants: `left` is final but for being forgotten; only what is down or has left can be forgotten by time; whoever
is down comes back only by its own word (`told alive`, of a greater incarnation).

Source: A. Das, I. Gupta, A. Motivala, "SWIM", DSN 2002, section 4.2.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, TypeVar

from roost.core.gossip import Entry, Health, State

__all__ = ["HEALTH_OF", "OTHERS", "OWN", "TOLD", "Standing", "Trigger", "standing_of", "transition_tables"]

Standing = Literal["alive", "suspect", "down", "left", "forgotten"]


class Trigger(StrEnum):
    """What can move a standing."""

    TOLD_ALIVE = "told alive"
    TOLD_SUSPECT = "told suspect"
    TOLD_DOWN = "told down"
    TOLD_LEFT = "told left"
    DOUBTED = "doubted"
    PROBE_FAILED = "probe failed"
    SUSPICION_ENDED = "suspicion ended"
    ADDRESS_TAKEN = "address taken"
    NAME_LOST = "name lost"
    FORGOTTEN = "forgotten"
    GO_UP = "go up"
    LEAVE_ASKED = "leave asked"
    LEAVE_DONE = "leave done"
    SELF_CHANGED = "self changed"
    ACCUSED = "accused"


MEANINGS: dict[Trigger, str] = {
    Trigger.TOLD_ALIVE: "a newer entry says alive: the member has refuted, or changed itself",
    Trigger.TOLD_SUSPECT: "a newer entry says suspect",
    Trigger.TOLD_DOWN: "a newer entry says down, in a rumour of a member that has long been live",
    Trigger.TOLD_LEFT: "an entry says left",
    Trigger.DOUBTED: "a newer entry says down, in a whole view or by a member not live here for `suspicion_seconds`",
    Trigger.PROBE_FAILED: "neither the member nor anybody asked for it answered in time",
    Trigger.SUSPICION_ENDED: "the suspicion time passed without a refutation",
    Trigger.ADDRESS_TAKEN: "a later run of its name listens at its address",
    Trigger.NAME_LOST: "an older live run of its name is known",
    Trigger.FORGOTTEN: "`forget_seconds` passed, or the operator says so",
    Trigger.GO_UP: "the node's services are ready",
    Trigger.LEAVE_ASKED: "the node begins to leave",
    Trigger.LEAVE_DONE: "all is handed off",
    Trigger.SELF_CHANGED: "services, weight or another field of the own entry changed",
    Trigger.ACCUSED: "somebody holds this node for suspect or down, or knows a greater incarnation of it",
}

OTHERS: dict[Standing, dict[Trigger, Standing]] = {
    "alive": {
        Trigger.TOLD_ALIVE: "alive",
        Trigger.TOLD_SUSPECT: "suspect",
        Trigger.TOLD_DOWN: "down",
        Trigger.TOLD_LEFT: "left",
        Trigger.DOUBTED: "suspect",
        Trigger.PROBE_FAILED: "suspect",
        Trigger.ADDRESS_TAKEN: "down",
        Trigger.NAME_LOST: "forgotten",
    },
    "suspect": {
        Trigger.TOLD_ALIVE: "alive",
        Trigger.TOLD_SUSPECT: "suspect",
        Trigger.TOLD_DOWN: "down",
        Trigger.TOLD_LEFT: "left",
        Trigger.DOUBTED: "suspect",
        Trigger.PROBE_FAILED: "suspect",
        Trigger.SUSPICION_ENDED: "down",
        Trigger.ADDRESS_TAKEN: "down",
        Trigger.NAME_LOST: "forgotten",
    },
    "down": {
        Trigger.TOLD_ALIVE: "alive",
        Trigger.TOLD_SUSPECT: "suspect",
        Trigger.TOLD_DOWN: "down",
        Trigger.TOLD_LEFT: "left",
        Trigger.FORGOTTEN: "forgotten",
    },
    "left": {
        Trigger.TOLD_LEFT: "left",
        Trigger.FORGOTTEN: "forgotten",
    },
}

OWN: dict[State, dict[Trigger, State]] = {
    "joining": {
        Trigger.GO_UP: "up",
        Trigger.LEAVE_ASKED: "leaving",
        Trigger.LEAVE_DONE: "left",
        Trigger.SELF_CHANGED: "joining",
        Trigger.ACCUSED: "joining",
    },
    "up": {
        Trigger.LEAVE_ASKED: "leaving",
        Trigger.LEAVE_DONE: "left",
        Trigger.SELF_CHANGED: "up",
        Trigger.ACCUSED: "up",
    },
    "leaving": {
        Trigger.LEAVE_DONE: "left",
        Trigger.SELF_CHANGED: "leaving",
        Trigger.ACCUSED: "leaving",
    },
    "left": {},
}

HEALTH_OF: dict[Standing, Health] = {"alive": Health.ALIVE, "suspect": Health.SUSPECT, "down": Health.DOWN}

TOLD: dict[Standing, Trigger] = {
    "alive": Trigger.TOLD_ALIVE,
    "suspect": Trigger.TOLD_SUSPECT,
    "down": Trigger.TOLD_DOWN,
    "left": Trigger.TOLD_LEFT,
}

Row = TypeVar("Row", bound=str)

_STANDINGS: tuple[Standing, Standing, Standing] = ("alive", "suspect", "down")


def standing_of(entry: Entry) -> Standing:
    """The row of `OTHERS` that an entry is in."""
    return "left" if entry.state == "left" else _STANDINGS[entry.health]


def transition_tables() -> str:
    """Both tables and the meaning of each trigger, as Markdown; `docs/membership.md` contains exactly this."""
    parts = ["What a node concludes about another member:", "", *_table(OTHERS), ""]
    parts += ["How its own state moves:", "", *_table(OWN), ""]
    parts += [f"- *{trigger}*: {meaning}" for trigger, meaning in MEANINGS.items()]
    return "\n".join(parts) + "\n"


def _table(table: dict[Row, dict[Trigger, Row]]) -> list[str]:
    triggers = [trigger for trigger in Trigger if any(trigger in row for row in table.values())]
    lines = ["| | " + " | ".join(table) + " |", "|---" * (len(table) + 1) + "|"]
    for trigger in triggers:
        lines.append(f"| {trigger} | " + " | ".join(row.get(trigger, "-") for row in table.values()) + " |")
    return lines
