"""`roost demo`: it passes, it would notice if anything were wrong, and it never leaves anything behind."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from roost.errors import Unavailable, Unreachable
from roost.ops.cli import main
from roost.ops.demo import show as demo
from roost.ops.demo.library import Module, faults, make_module, read_library
from roost.ops.demo.load import REPEAT_PAUSE_SECONDS, Counting, Reading, counter, store
from roost.ops.demo.processes import DemoFailed
from roost.ops.demo.screen import PlainScreen
from roost.ops.demo.story import Outcome
from roost.ops.loop import run
from roost.services.kv import KV

ROOST = Path(sys.executable).parent / "roost"
WORKER = "roost.ops.demo.worker"


def workers_of(folder: Path) -> list[int]:
    """The processes of a demo whose files are in `folder`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                arguments = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if WORKER in arguments and str(folder) in arguments:
                found.append(int(entry.name))
    return found


def eventually(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for what happens in other processes, which tell this one nothing."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come to be"
        time.sleep(0.02)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the demo makes its own folder; must be empty again, with no process that knows of it."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    assert list(tmp_path.iterdir()) == []
    assert workers_of(tmp_path) == []


def begin(*arguments: str) -> subprocess.Popen[str]:
    """The demo in a process of its own."""
    return subprocess.Popen([ROOST, "demo", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_check_passes_in_under_a_minute(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOST_SECRET", "what is set for other nodes is nothing to the demo")
    done = begin("--check")
    out, err = done.communicate(timeout=60)
    assert (done.returncode, err) == (0, "")
    figures = dict(line.strip().rsplit("  ", 1) for line in out.splitlines() if line.startswith("  "))
    figures = {name.strip(): value for name, value in figures.items()}
    assert figures["wrong or missing"] == "0"
    assert figures["keys (module files)"] == f"{len(read_library().modules):,}"
    assert int(figures["partitions moved"].replace(",", "")) > 100
    assert int(figures["passes over all keys"]) >= 3
    assert int(figures["partitions taken over"]) > 50
    assert float(figures["longest gap between two answers then, seconds"]) > 0
    assert figures["partitions with possible_loss"] == "none"
    assert "\x1b" not in out


def test_with_one_copy_the_same_story_says_what_the_killed_node_took_with_it(folder: Path) -> None:
    outcome = run(demo.show(PlainScreen(), 60.0, replicas=1))
    assert outcome.wrong >= outcome.possible_loss > 50
    assert any(fault.endswith(" is missing") for fault in outcome.faults)
    assert any("possible_loss" in fault for fault in outcome.faults)
    assert any(fault.startswith("the store counts ") for fault in outcome.faults)


def test_its_secret_is_for_its_owner_only(folder: Path) -> None:
    demo._prepare(folder)
    assert stat.S_IMODE((folder / "secret").stat().st_mode) == 0o600
    for file in folder.iterdir():
        file.unlink()


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_it_ends_its_processes(folder: Path, sent: signal.Signals, code: int) -> None:
    process = begin("--check")
    eventually(lambda: len(workers_of(folder)) >= 3)
    process.send_signal(sent)
    _, err = process.communicate(timeout=20)
    assert process.returncode == code
    assert "Traceback" not in err


def test_a_node_that_dies_ends_it_with_1_and_the_log(folder: Path) -> None:
    process = begin("--check")
    eventually(lambda: len(workers_of(folder)) >= 3)
    os.kill(workers_of(folder)[0], signal.SIGKILL)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "ended in the middle of the work" in err
    assert "the end of the log of node" in err
    assert "Traceback" not in err


def test_its_nodes_end_with_it_even_if_it_is_killed(folder: Path) -> None:
    process = begin("--check")
    eventually(lambda: len(workers_of(folder)) >= 3)
    process.kill()
    process.communicate(timeout=20)
    eventually(lambda: workers_of(folder) == [])
    for file in sorted(folder.rglob("*"), reverse=True):  # nobody was left to remove them
        file.rmdir() if file.is_dir() else file.unlink()


def test_it_is_bounded_in_time(folder: Path) -> None:
    with pytest.raises(DemoFailed, match=r"longer than 0\.5 s"):
        run(demo.show(PlainScreen(), 0.5))


def test_any_difference_is_exit_code_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    async def show(*_: object) -> Outcome:
        return Outcome(wrong=1, faults=["abc.py is missing"])

    monkeypatch.setattr("roost.ops.cli.demo.show", show)
    with pytest.raises(SystemExit) as ended:
        main(["demo", "--check"])
    assert ended.value.code == 1
    assert "abc.py is missing" in capsys.readouterr().err


# what the workers check


class Shelf:
    """A store in this process, whose answers a test can spoil."""

    def __init__(self) -> None:
        self.items: dict[str, Module] = {}
        self.spoil: Callable[[str, Module | None], Module | None] = lambda _, module: module
        self.stored: Callable[[Module], None] = lambda _: None

    async def get(self, key: str) -> Module | None:
        await asyncio.sleep(0)
        return self.spoil(key, self.items.get(key))

    async def put(self, key: str, module: Module) -> None:
        await asyncio.sleep(0)
        self.items[key] = module
        self.stored(module)


MODULES = {path: make_module(path, f"# {path}\n" * 3) for path in ("a.py", "b/c.py", "d.py")}


def quiet(*_: int) -> None:
    """Nobody looks at the progress."""


def read_through(spoil: Callable[[str, Module | None], Module | None]) -> Reading:
    """What a reader finds in one pass over a shelf with all modules and one counter."""

    async def reads() -> Reading:
        shelf = Shelf()
        library = cast("KV[str, Module]", shelf)
        await store(library, MODULES, 2, quiet)
        await library.put("counter:0", counter(0, 7))
        shelf.spoil = spoil
        reading = Reading(library, MODULES, 1, repeat_seconds_max=0)
        reading.halt()
        await reading.run(2, quiet)
        return reading

    return run(reads())


def test_a_reader_finds_nothing_wrong_where_nothing_is() -> None:
    reading = read_through(lambda _, module: module)
    assert (reading.wrong, reading.faults, reading.passes) == (0, [], 1)
    assert reading.calls >= 4


def fail(key: str, module: Module | None) -> Module | None:
    if key == "d.py":
        raise Unavailable("no holder")
    return module


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda key, module: None if key == "a.py" else module, id="missing"),
        pytest.param(lambda key, module: MODULES["d.py"] if key == "a.py" else module, id="another's"),
        pytest.param(lambda key, module: make_module(key, "x") if key == "a.py" else module, id="changed"),
        pytest.param(lambda key, module: counter(0, 7) if key == "b/c.py" else module, id="a counter's"),
        pytest.param(fail, id="not readable"),
    ],
)
def test_a_reader_finds_what_is_wrong(spoil: Callable[[str, Module | None], Module | None]) -> None:
    reading = read_through(spoil)
    assert reading.wrong == 1
    assert len(reading.faults) == 1


def test_a_read_that_fails_is_repeated_and_counted() -> None:
    async def reads() -> tuple[Reading, tuple[float, int, str]]:
        shelf = Shelf()
        shelf.items["a.py"] = MODULES["a.py"]
        failures = iter((Unreachable("it is gone"), Unavailable("no holder")))

        def spoil(_: str, module: Module | None) -> Module | None:
            for failure in failures:
                raise failure
            return module

        shelf.spoil = spoil
        reading = Reading(cast("KV[str, Module]", shelf), {"a.py": MODULES["a.py"]}, 0)
        reading.halt()
        await reading.run(2, quiet)
        return reading, reading.pulse.take()

    reading, (gap_seconds, repeated, why) = run(reads())
    assert (reading.wrong, repeated, why) == (0, 2, "Unavailable: no holder")
    assert reading.pulse.take()[1:] == (0, "")
    assert gap_seconds >= 2 * REPEAT_PAUSE_SECONDS


def test_a_reader_notices_a_counter_that_goes_back() -> None:
    async def looks() -> Reading:
        shelf = Shelf()
        reading = Reading(cast("KV[str, Module]", shelf), MODULES, 1)
        for value in (3, 4, 4, 2):
            shelf.items["counter:0"] = counter(0, value)
            await reading._look_at(0)
        shelf.items.clear()
        await reading._look_at(0)
        return reading

    assert run(looks()).faults == ["counter:0 went back from 4 to 2", "counter:0 went back from 4 to -1"]


@pytest.mark.parametrize("field", ["bytes", "lines", "sha256", "text", "path"])
def test_every_field_of_a_module_is_verified(field: str) -> None:
    module = MODULES["a.py"]
    assert faults(module, module) == ""
    other: dict[str, Any] = {"bytes": 1, "lines": 99, "sha256": "0" * 64, "text": module.text + " ", "path": "x.py"}
    assert "a.py" in faults(msgspec.structs.replace(module, **{field: other[field]}), module)


def test_a_writer_repeats_what_may_have_run_until_it_is_acknowledged() -> None:
    async def counts() -> tuple[Counting, list[str]]:
        shelf, texts = Shelf(), list[str]()
        counting = Counting(cast("KV[str, Module]", shelf), 0, 1)

        def stored(module: Module) -> None:
            texts.append(module.text)
            if module.text == "3":
                counting.halt()
            if len(texts) in (2, 3):
                raise Unreachable("it broke", may_have_run=True)

        shelf.stored = stored
        await counting.run(0, quiet)
        return counting, texts

    counting, texts = run(counts())
    assert (texts, counting.values, counting.pulse.take()[1]) == (["1", "2", "2", "2", "3"], {0: 3}, 2)


def test_a_writer_counts_only_what_was_acknowledged() -> None:
    async def counts() -> tuple[Counting, Shelf]:
        shelf = Shelf()
        counting = Counting(cast("KV[str, Module]", shelf), 3, 5)
        shelf.stored = lambda module: counting.halt() if module.text == "5" else None

        await counting.run(0, quiet)
        return counting, shelf

    counting, shelf = run(counts())
    assert max(counting.values.values()) >= 5
    assert {f"counter:{number}": str(value) for number, value in counting.values.items()} == {
        key: module.text for key, module in shelf.items.items()
    }
