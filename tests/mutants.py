"""Breaks the copies on purpose, one way after the other, and shows which test notices: `make mutants`.

Each break is made in a copy of the tree, in a temporary directory, and the tests that must notice are run there, until
the first that fails. A break that no test notices, or whose text is not in the file any more, is an error.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
CORE = ("tests/core/test_every_step.py", "tests/core/test_chaos.py", "tests/core/test_explorer.py")
MACHINES = ("tests/core/test_copies.py", "tests/core/test_claims.py", "tests/core/test_transfer.py")


class Mutant(NamedTuple):
    """One break."""

    name: str
    file: str
    old: str
    new: str
    why: str
    """What it breaks."""
    tests: tuple[str, ...] = CORE


MUTANTS = (
    Mutant(
        "acknowledgements over the ring",
        "core/copies.py",
        "writes = sorted((_has(book, slot, uid) for uid in right.copies), reverse=True)",
        "writes = sorted((_has(book, slot, uid) for uid in wanted_copies(book, slot)), reverse=True)",
        "a claim asks the copies on record: a write on others would not be missed",
    ),
    Mutant(
        "a claim that asks nobody",
        "core/claims.py",
        "claim = slot.claim = Claim(epoch, dict.fromkeys(others), {}",
        "claim = slot.claim = Claim(epoch, {}, {}",
        "the old holder may live, and others have what is lacking here",
    ),
    Mutant(
        "a claim that does not gather",
        "core/claims.py",
        "            claim.gathering[uid] = answer.collected_until\n",
        "            pass\n",
        "an acknowledged write may be on another copy only",
    ),
    Mutant(
        "execution after ceding",
        "core/cutover.py",
        "        if book.now >= cut.resend_at:\n            _send(book, cut)\n",
        "        if book.now >= cut.resend_at:\n            book.hold(slot, slot.right, book.me)\n",
        "the right may have been taken though the answer is lost",
    ),
    Mutant(
        "copies on record before they are in step",
        "core/copies.py",
        "if uid in slot.feeds and slot.feeds[uid].in_step]\n    staying",
        "if uid in slot.feeds]\n    staying",
        "a copy on record counts as one that has everything",
    ),
    Mutant(
        "a change without the old copies",
        "core/copies.py",
        "for copies in (before, right.copies))",
        "for copies in (right.copies,))",
        "whoever takes over may know the old record only",
        (*MACHINES, *CORE),
    ),
    Mutant(
        "writes during a change satisfy the old record only",
        "core/copies.py",
        "        acked = min(acked, _acked_by(book, slot, slot.pending))\n",
        "        pass\n",
        "whoever takes over may know the new record only",
        (*MACHINES, *CORE),
    ),
    Mutant(
        "a dropped copy forgets at once",
        "core/receiving.py",
        "        book.record(slot, chunk.right, witnessed=True)\n",
        "        book.record(slot, chunk.right, witnessed=True)\n"
        "        if book.me not in chunk.right.copies:\n            book.forget(slot)\n",
        "the change may never hold, and then it was one of those that acknowledged",
        (*MACHINES, *CORE),
    ),
    Mutant(
        "an old epoch after a promise",
        "core/receiving.py",
        "    return epoch - 1 if claimer == uid else epoch\n",
        "    return 0\n",
        "the old holder would get writes acknowledged that the new one does not know",
        (*MACHINES, *CORE),
    ),
    Mutant(
        "a copy drops what differs before the rest has come",
        "core/receiving.py",
        "coming.stale = dict.fromkeys(items.in_buckets(chunk.clear))",
        "items.take(items.in_buckets(chunk.clear))",
        "the holder may die before it has sent it again",
        (*MACHINES, *CORE),
    ),
    Mutant(
        "strays forgotten before they are acknowledged",
        "core/healing.py",
        "if complete and slot.acked < slot.written and slot.role in EXECUTING:",
        "if complete and slot.acked < slot.written < 0 and slot.role in EXECUTING:",
        "the holder may die with the only copy",
        ("tests/core/test_healing.py", *CORE),
    ),
    Mutant(
        "a promise to a dead claimer is ignored",
        "core/claims.py",
        "    if doubtful:\n        lost = True\n",
        "    if False:\n        lost = True\n",
        "it may have held, and acknowledged",
        (*MACHINES, *CORE),
    ),
    Mutant(
        "what was written since is counted with a round",
        "core/transfer.py",
        "    share_changes(slot)\n    right = slot.pending or slot.right\n",
        "    right = slot.pending or slot.right\n",
        "a write is acknowledged that was never sent",
        (*MACHINES, *CORE),
    ),
    Mutant(
        "answers before acknowledgements",
        "services/lanes.py",
        "        if slot.acked == slot.written:\n            return None\n        woken",
        "        if slot.acked <= slot.written:\n            return None\n        woken",
        "a caller is told that a write is safe which is on one node only",
        ("tests/services/test_replication.py", "tests/services/test_kv_atomic.py"),
    ),
)


def noticed_by(mutant: Mutant, tree: Path) -> str:
    """The first test that fails with it; empty: none."""
    target = tree / "src" / "roost" / mutant.file
    text = target.read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        raise SystemExit(f"{mutant.name}: its text is {text.count(mutant.old)} times in {mutant.file}, not once")
    target.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        run = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *mutant.tests],
            cwd=tree,
            env={**os.environ, "PYTHONPATH": str(tree / "src"), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    finally:
        target.write_text(text, encoding="utf-8")
    if run.returncode not in (0, 1):
        raise SystemExit(f"{mutant.name}: the tests did not run\n{run.stdout}{run.stderr}")
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", run.stdout, re.MULTILINE)
    return found[1] if found and run.returncode else ""


def main(names: list[str]) -> int:
    """Try all of them, or those whose names have one of these words."""
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for name in ("src", "tests", "pyproject.toml"):
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, tree / name)
        for mutant in MUTANTS:
            if names and not any(word in mutant.name for word in names):
                continue
            test = noticed_by(mutant, tree)
            survivors += not test
            sys.stdout.write(f"{mutant.name:<52} {test or 'SURVIVES: ' + mutant.why}\n")
            sys.stdout.flush()
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
