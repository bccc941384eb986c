"""Scenarios of membership as text: what is done when, and what each node then sees. Played from the text itself.

A file has a title, a few sentences, a line of settings, and lines. Those that begin with `at` are the script, and only
they are read; the indented ones are the outcome and are written by the machines, with the time of each.

    python -m tests.core.scenario                # which files no longer tell what happens, and the difference
    python -m tests.core.scenario --write        # write all of them anew (or some: --write crash split)

The outcome follows from the script and the seed alone. A difference means that membership behaves otherwise than
before: read it, and if it is what was wanted, write the files anew and commit them together with the cause.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from roost.config import PROFILES
from roost.core.gossip import Entry
from roost.core.membership import Effect, Event, Joined, MemberChanged, NameConflict, Received, SettledChanged
from roost.core.transitions import standing_of
from tests.core.swim_runner import Runner
from tests.core.swim_world import World

__all__ = ["FOLDER", "Play", "Scenario", "Sight", "difference", "names", "play", "read", "render"]

FOLDER = Path(__file__).parent / "scenarios"
FORMED_SECONDS = 10.0
COMMAND = "python -m tests.core.scenario --write"
SETTINGS = re.compile(r"seed (\d+), profile (\w+)")
LINE = re.compile(r"at +(\d+(?:\.\d+)?)  +(\S.*)")

TELLINGS = {
    "joined": "{who} has joined",
    "refutes": "{who} refutes",
    "settled": "{who} is settled",
    "unsettled": "{who} is no longer settled",
    "yields": "{who} gives up: its name is that of {whom}",
    "is": "{who} is {what}",
    "has left": "{who} has left",
    "meets": "{who} learns of {whom}, which is {what}",
    "suspects": "{who} suspects {whom}",
    "trusts": "{who} no longer suspects {whom}",
    "down": "{who}: {whom} is down",
    "back": "{who}: {whom} is back, {what}",
    "state": "{who}: {whom} is {what}",
    "left": "{who}: {whom} has left",
    "forgets": "{who} forgets {whom}",
    "rests": "{who}: {whom} rests",
    "rested": "{who}: {whom} no longer rests",
    "changes": "{who}: {whom} now has {what}",
}


@dataclass(frozen=True)
class Sight:
    """Something that a node sees or says: `who` saw it `at`, of `whom`."""

    at: float
    who: str
    kind: str
    whom: str = ""
    what: str = ""
    step: int = 0
    """The line of the script, counted from 1, that was the last one before."""

    def __str__(self) -> str:
        return TELLINGS[self.kind].format(who=self.who, whom=self.whom, what=self.what)


@dataclass(frozen=True)
class Scenario:
    """The part of a file that a person has written."""

    heading: str
    """The title and the sentences, as they stand there."""
    seed: int
    profile: str
    script: tuple[tuple[float, str], ...]


@dataclass
class Play:
    """A scenario that is played: `world` ends up as the script leaves it."""

    world: _Theatre
    script: tuple[tuple[float, str], ...]
    nodes: dict[str, Runner] = field(default_factory=dict)
    """By what the script calls them, which is the name unless two runs share one."""
    sights: list[Sight] = field(default_factory=list)
    step: int = 0

    def seen(self, kind: str, *, whom: str = "", since: float = 0.0) -> list[Sight]:
        """All of that kind, about `whom` if it is given."""
        return [one for one in self.sights if one.kind == kind and whom in ("", one.whom) and one.at >= since]

    def when(self, what: str) -> float:
        """The time of the first line of the script that contains these words."""
        return next(at for at, line in self.script if what in line)

    @property
    def states(self) -> dict[str, str]:
        """How each running node sees the others in the end: `up` if they are and nobody doubts it, else their state."""
        return {
            name: " ".join(f"{self.label(entry.uid)}:{_standing(entry)}" for entry in node.machine.entries())
            for name, node in self.nodes.items()
            if node.state == "running"
        }

    def label(self, uid: int) -> str:
        return next(label for label, node in self.nodes.items() if node.uid == uid)

    def note(self, who: Runner, kind: str, whom: int = 0, what: str = "") -> None:
        at = self.world.now - self.world.began
        self.sights.append(Sight(at, self.label(who.uid), kind, self.label(whom) if whom else "", what, self.step))


class _Theatre(World):
    """A world that tells its play what the nodes see."""

    def __init__(self, scenario: Scenario) -> None:
        super().__init__(scenario.seed, timings=PROFILES["lan" if scenario.profile == "lan" else "local"])
        self.play = Play(self, scenario.script)
        self.began = self.now

    def give(self, runner: Runner, event: Event) -> None:
        before = runner.machine.me
        super().give(runner, event)
        after = runner.machine.me
        if isinstance(event, Received) and after.incarnation > before.incarnation and after.state == before.state:
            self.play.note(runner, "refutes")

    def _carry_out(self, runner: Runner, effect: Effect) -> None:
        match effect:
            case Joined():
                self.play.note(runner, "joined")
            case NameConflict(holder=holder):
                self.play.note(runner, "yields", holder.uid)
            case SettledChanged(settled=settled):
                self.play.note(runner, "settled" if settled else "unsettled")
            case MemberChanged(before=before, after=after, forgotten=forgotten):
                self._tell(runner, before, after, forgotten)
            case _:
                pass
        super()._carry_out(runner, effect)

    def _tell(self, runner: Runner, before: Entry | None, after: Entry, forgotten: bool) -> None:
        uid, note = after.uid, self.play.note
        old, new = standing_of(before) if before is not None else "", standing_of(after)
        if forgotten:
            note(runner, "forgets", uid)
        elif before is None:
            note(runner, "meets", uid, _standing(after))
        elif uid == runner.uid and before.state != after.state:
            note(runner, "has left") if after.state == "left" else note(runner, "is", what=after.state)
        elif old != new:
            kinds = {"suspect": "suspects", "down": "down", "left": "left", "alive": "trusts"}
            returns = old == "down" and new == "alive"
            note(runner, "back" if returns else kinds[new], uid, _standing(after) if returns else "")
        elif before.state != after.state:
            note(runner, "state", uid, _standing(after))
        for name in _changed(before, after):
            if name == "resting":
                note(runner, "rests" if after.resting else "rested", uid)
            else:
                note(runner, "changes", uid, f"{name} = {getattr(after, name)}")


def _standing(entry: Entry) -> str:
    standing = standing_of(entry)
    return entry.state if standing == "alive" else standing


def _changed(before: Entry | None, after: Entry) -> list[str]:
    """The fields of an entry that a member changes during its life, apart from its state."""
    told = ("incarnation", "health", "state")
    fields = [one.name for one in msgspec.structs.fields(Entry) if one.name not in told]
    return [name for name in fields if before is not None and getattr(before, name) != getattr(after, name)]


# the script


def _start(play: Play, labels: str, name: str, address: str, seeds: str) -> None:
    for label in _split(labels):
        runner = play.world.start(name or label, *_split(seeds), address=f"{address}:1" if address else "")
        play.nodes[label] = runner


def _form(play: Play, labels: str) -> None:
    """What happens until they agree is not told: the scenario begins there."""
    first, *others = _split(labels)
    _start(play, first, "", "", "")
    _start(play, ", ".join(others), "", "", first)
    play.world.until(lambda: play.world.agree(play.nodes.values()), FORMED_SECONDS)
    play.sights.clear()


def _cut(play: Play, some: str, others: str) -> None:
    play.world.cut(_nodes(play, some), _nodes(play, others))


def _cut_one_way(play: Play, some: str, others: str) -> None:
    play.world.cut(_nodes(play, some), _nodes(play, others), both=False)


def _each(act: Callable[[World, Runner], object]) -> Callable[[Play, str], None]:
    def do(play: Play, labels: str) -> None:
        for node in _nodes(play, labels):
            act(play.world, node)

    return do


def _block(play: Play, labels: str, seconds: str) -> None:
    for node in _nodes(play, labels):
        play.world.block(node, float(seconds), timers_first=True)


WHO = r"(\w+(?:, \w+)*)"
ACTS: list[tuple[re.Pattern[str], Callable[..., None]]] = [
    (re.compile(rf"{WHO} starts?(?: as (\w+))?(?: at (\w+))?(?:,? through {WHO})?"), _start),
    (re.compile(rf"{WHO} form a cluster"), _form),
    (re.compile(rf"{WHO} (?:is|are) killed"), _each(World.crash)),
    (re.compile(rf"{WHO} falls? silent"), _each(World.freeze)),
    (re.compile(rf"{WHO} (?:is|are) heard again"), _each(World.thaw)),
    (re.compile(rf"{WHO} stands? still for ([0-9.]+) s"), _block),
    (re.compile(rf"{WHO} leaves?"), _each(World.leave)),
    (re.compile(rf"{WHO} (?:is|are) cut off from {WHO}"), _cut),
    (re.compile(rf"nothing of {WHO} reaches {WHO}"), _cut_one_way),
    (re.compile(r"the network heals"), lambda play: play.world.heal()),
    (re.compile(r"the end"), lambda play: None),
]


def _split(labels: str | None) -> list[str]:
    return labels.split(", ") if labels else []


def _nodes(play: Play, labels: str) -> list[Runner]:
    return [play.nodes[label] for label in _split(labels)]


def _act(play: Play, line: str) -> None:
    for pattern, act in ACTS:
        if match := pattern.fullmatch(line):
            act(play, *match.groups())
            return
    raise ValueError(f"no scenario can do this: {line!r}")


# files


def names() -> list[str]:
    """Of all scenarios there are."""
    return sorted(path.stem for path in FOLDER.glob("*.txt"))


def read(text: str) -> Scenario:
    """The heading and the script of a file; what else stands there is outcome."""
    lines = text.splitlines()
    found = [(number, match) for number, line in enumerate(lines) if (match := SETTINGS.fullmatch(line))]
    if len(found) != 1:
        raise ValueError("a scenario has one line `seed 1, profile lan`")
    number, settings = found[0]
    script = [(float(match[1]), match[2]) for line in lines[number:] if (match := LINE.fullmatch(line))]
    strange = [line for line in lines[number + 1 :] if line and not line.startswith(" ") and not LINE.fullmatch(line)]
    if strange or script != sorted(script, key=lambda step: step[0]):
        raise ValueError(f"lines of the script are `at 3.0  a, b are killed`, in order of time, not {strange}")
    return Scenario("\n".join(lines[:number]), int(settings[1]), settings[2], tuple(script))


def play(scenario: Scenario) -> Play:
    """Do what the script says, to its end."""
    theatre = _Theatre(scenario)
    for at, line in scenario.script:
        theatre.run(theatre.began + at - theatre.now)
        theatre.play.step += 1
        _act(theatre.play, line)
    return theatre.play


def render(scenario: Scenario, played: Play) -> str:
    """The whole file."""
    lines = [scenario.heading, f"seed {scenario.seed}, profile {scenario.profile}"]
    for step, (at, line) in enumerate(scenario.script, 1):
        together = step > 1 and scenario.script[step - 2][0] == at
        lines += [f"at {at:6.2f}  {line}"] if together else ["", f"at {at:6.2f}  {line}"]
        lines += [f"   {sight.at:8.3f}    {sight}" for sight in played.sights if sight.step == step]
    return "\n".join(lines) + "\n"


def difference(name: str, before: str, after: str) -> str:
    """What to tell when a file no longer tells what happens; empty if it does."""
    path = f"tests/core/scenarios/{name}.txt"
    lines = list(difflib.unified_diff(before.splitlines(), after.splitlines(), path, "what happens now", lineterm=""))
    return "\n".join([*lines, "", f"If this is as it should be: {COMMAND} {name}"]) if lines else ""


def main() -> int:
    """Compare, or write."""
    parser = argparse.ArgumentParser(prog="python -m tests.core.scenario", description=__doc__)
    parser.add_argument("names", nargs="*", default=names(), help="which scenarios (default: all)")
    parser.add_argument("--write", action="store_true", help="write them anew")
    options = parser.parse_args()
    chosen: Sequence[str] = options.names
    differing = 0
    for name in chosen:
        path = FOLDER / f"{name}.txt"
        before = path.read_text(encoding="utf-8")
        scenario = read(before)
        after = render(scenario, play(scenario))
        if options.write:
            path.write_text(after, encoding="utf-8")
        elif before != after:
            differing += 1
            sys.stdout.write(difference(name, before, after) + "\n")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
