"""Tests that stand in the documentation, run as what they are."""

from __future__ import annotations

import importlib.util
import inspect
import re
from pathlib import Path

import pytest

from roost.testing import Cluster

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "docs/concepts.md")


def block_with_a_test(page: str) -> str:
    text = (ROOT / page).read_text(encoding="utf-8")
    (found,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "async def test_" in block]
    return str(found)


@pytest.mark.parametrize("page", PAGES)
async def test_a_test_in_the_documentation_passes(page: str, cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "shown.py"
    path.write_text(block_with_a_test(page))
    spec = importlib.util.spec_from_file_location("shown", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (shown,) = [one for name, one in inspect.getmembers(module, inspect.iscoroutinefunction) if name[:5] == "test_"]
    await shown(cluster)
