"""The breaks of `make mutants` still fit the code."""

from __future__ import annotations

import pytest

from tests.mutants import MUTANTS, ROOT, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_break_is_made_where_it_was_meant_to_be(mutant: Mutant) -> None:
    text = (ROOT / "src" / "roost" / mutant.file).read_text(encoding="utf-8")
    assert text.count(mutant.old) == 1
    assert all((ROOT / test).exists() for test in mutant.tests)
