"""The rules of the house, where a machine can tell whether they are kept."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("src", "tests", "benchmarks", "examples", "scripts")
MODULES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
SOURCE = [path for path in MODULES if path.is_relative_to(ROOT / "src")]
CORE = [path for path in SOURCE if path.is_relative_to(ROOT / "src" / "roost" / "core")]
TESTS = [path for path in MODULES if path.is_relative_to(ROOT / "tests")]

LINES_MAX = 600

UNSAFE_MODULES = {"cPickle", "cloudpickle", "dill", "jsonpickle", "marshal", "pickle", "pickletools", "shelve"}
UNSAFE_BUILTINS = {"__import__", "compile", "eval", "exec"}
UNSAFE_ALLOWED: dict[str, str] = {}
"""Files that may, and why: none yet. The loader of functions will be the only one."""

IMPURE_MODULES = {
    "asyncio",
    "concurrent",
    "datetime",
    "io",
    "logging",
    "multiprocessing",
    "os",
    "pathlib",
    "roost.eager",
    "roost.runtime",
    "roost.settings",
    "secrets",
    "select",
    "selectors",
    "signal",
    "socket",
    "ssl",
    "subprocess",
    "sys",
    "tempfile",
    "threading",
    "time",
    "uuid",
    "uvloop",
}
IMPURE_BUILTINS = {"id", "input", "open", "print"}

SLEEPS_ALLOWED = {
    "tests/ops/test_demo.py": "watches processes that tell it nothing",
    "tests/services/fake_host.py": "in virtual time",
    "tests/services/test_partitions.py": "in virtual time",
    "tests/sim/clients.py": "in virtual time",
    "tests/sim/test_partitions_under_stress.py": "in virtual time",
}


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), named(path))


def imports(tree: ast.Module) -> Iterator[tuple[str, str, int]]:
    """(module, name taken from it or "", line) of every import, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "", node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", alias.name, node.lineno) for alias in node.names)


def builtin_uses(tree: ast.Module, names: set[str]) -> Iterator[tuple[str, int]]:
    """(name, line) where a builtin is named, called or not: `run = eval` is one as well. `re.compile` is none."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in names:
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and node.attr in names and _is_builtins(node.value):
            yield node.attr, node.lineno


def _is_builtins(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("builtins", "__builtins__")


def within(module: str, modules: set[str]) -> bool:
    return any(module == each or module.startswith(f"{each}.") for each in modules)


def unsafe(tree: ast.Module) -> list[str]:
    found = [f"{line}: {module}" for module, _, line in imports(tree) if within(module, UNSAFE_MODULES)]
    found += [
        f"{line}: {name}" for module, name, line in imports(tree) if module == "builtins" and name in UNSAFE_BUILTINS
    ]
    return found + [f"{line}: {name}" for name, line in builtin_uses(tree, UNSAFE_BUILTINS)]


def impure(tree: ast.Module) -> list[str]:
    found = []
    for module, name, line in imports(tree):
        if within(module, IMPURE_MODULES) or within(f"{module}.{name}", IMPURE_MODULES):
            found.append(f"{line}: {module}")
        if module == "random" and name not in ("", "Random"):
            found.append(f"{line}: random.{name}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "random" and node.attr != "Random":
            found.append(f"{node.lineno}: random.{node.attr}")
        elif isinstance(node, ast.alias) and node.name == "random" and node.asname:
            found.append(f"{node.lineno}: random under another name")
    found += [f"{line}: {name}" for name, line in builtin_uses(tree, IMPURE_BUILTINS)]
    found += [f"{node.lineno}: await" for node in ast.walk(tree) if isinstance(node, ast.Await | ast.AsyncFunctionDef)]
    return found


def sleeps(tree: ast.Module) -> list[str]:
    """Waiting for time to pass. `sleep(0)` only lets others have their turn."""
    found = [f"{line}: {module}.sleep" for module, name, line in imports(tree) if name == "sleep"]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("asyncio.sleep", "time.sleep"):
            nothing = len(node.args) == 1 and isinstance(node.args[0], ast.Constant) and node.args[0].value == 0
            if not nothing:
                found.append(f"{node.lineno}: {ast.unparse(node.func)}")
    return found


def undescribed(tree: ast.Module) -> list[str]:
    """A package that only says what it is for offers nothing itself."""
    if not ast.get_docstring(tree):
        return ["no docstring"]
    offered = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]
    ]
    if len(offered) != 1:
        return ["no __all__"] if len(tree.body) > 1 else []
    names = ast.literal_eval(offered[0])
    return sorted({f"{name} twice in __all__" for name in names if names.count(name) > 1})


def broken(
    paths: Sequence[Path], rule: Callable[[ast.Module], list[str]], allowed: Mapping[str, str] | None = None
) -> dict[str, list[str]]:
    """What breaks a rule, by file. An exception that is none any more breaks it, too."""
    found = {named(path): lines for path in paths if (lines := rule(tree_of(path)))}
    for name in allowed or {}:
        if found.pop(name, None) is None:
            found[name] = ["needs no exception"]
    return found


def test_the_rules_are_about_something() -> None:
    assert len(SOURCE) > 30
    assert len(CORE) > 10
    assert len(TESTS) > 20


def test_nothing_unpickles_or_runs_text() -> None:
    assert broken(MODULES, unsafe, UNSAFE_ALLOWED) == {}


def test_what_is_unsafe_is_seen() -> None:
    for text in (
        "import pickle",
        "import os, marshal as m",
        "from cloudpickle import dumps",
        "def f():\n    import shelve",
        "from pickle import loads as read",
        "eval('1')",
        "run = exec",
        "compile('1', '', 'eval')",
        "import builtins\nbuiltins.eval('1')",
        "from builtins import exec as run",
        "__import__('pickle')",
    ):
        assert unsafe(ast.parse(text)), text
    for text in (
        "import re\nre.compile('x')",
        "from roost.wire import pickled",
        "model.eval()",
        "'eval(1)'",
        "import importlib.metadata",
    ):
        assert not unsafe(ast.parse(text)), text


def test_the_core_only_thinks() -> None:
    assert broken(CORE, impure) == {}


def test_what_is_impure_is_seen() -> None:
    for text in (
        "import time",
        "import asyncio.events",
        "from time import monotonic",
        "import random\nrandom.choice(members)",
        "import random\nrandom.seed(1)",
        "import random as chance",
        "from random import random",
        "from random import Random, choice",
        "from roost import runtime",
        "from roost.runtime import Runtime",
        "import logging as quiet",
        "print(1)",
        "order = sorted(things, key=id)",
        "async def f() -> None: ...",
    ):
        assert impure(ast.parse(text)), text
    for text in (
        "from random import Random",
        "import random\ndef step(rng: random.Random) -> int: return rng.choice([1])",
        "import msgspec",
        "self.id = entry.id",
        "from roost.core.time_of import x",
    ):
        assert not impure(ast.parse(text)), text


def test_a_module_says_what_it_is_for_and_what_it_offers() -> None:
    assert broken(SOURCE, undescribed) == {}


def test_what_a_module_does_not_say_is_seen() -> None:
    for text in ("", "__all__ = []", "'What for.'\nx = 1", "'What for.'\n__all__ = ['x', 'x']"):
        assert undescribed(ast.parse(text)), text
    for text in ("'A package.'", "'What for.'\n__all__ = ['x']\nx = 1"):
        assert not undescribed(ast.parse(text)), text


def test_no_file_outgrows_its_subject() -> None:
    lines = {named(path): path.read_text(encoding="utf-8").count("\n") for path in MODULES}
    assert {name: count for name, count in lines.items() if count > LINES_MAX} == {}


def test_tests_wait_for_events_and_not_for_time() -> None:
    timed = ROOT / "tests" / "net"
    assert broken([path for path in TESTS if not path.is_relative_to(timed)], sleeps, SLEEPS_ALLOWED) == {}


def test_sleeping_is_seen() -> None:
    for text in (
        "import time\ntime.sleep(0.1)",
        "async def f():\n    await asyncio.sleep(1)",
        "from time import sleep",
    ):
        assert sleeps(ast.parse(text)), text
    for text in ("async def f():\n    await asyncio.sleep(0)", "async def f():\n    await cluster.sleep(5)"):
        assert not sleeps(ast.parse(text)), text


def texts() -> Iterator[Path]:
    """Everything that is written by hand, the files of the project's root among it."""
    yield from (path for path in ROOT.iterdir() if path.is_file())
    for folder in (*FOLDERS, "docs", ".ci"):
        yield from (path for path in (ROOT / folder).rglob("*") if path.is_file() and path.suffix != ".pyc")


HOME = re.compile(rb"/(?:work|root|home|Users)/[A-Za-z0-9]")


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    assert sorted(named(path) for path in texts() if HOME.search(path.read_bytes())) == []


def test_a_path_of_a_machine_is_seen() -> None:
    assert HOME.search(b"see /" + b"home/ann/x")
    assert not HOME.search(b"the home/work balance; https://example.com/homely")
