"""The mutations still fit the source, so that the nightly run tries what it says."""

from __future__ import annotations

from pathlib import Path

import pytest
from mutations import MUTATIONS, Mutation

SOURCE = Path(__file__).resolve().parents[2] / "src"


def test_there_are_enough() -> None:
    assert len(MUTATIONS) >= 12
    assert len({mutation.breaks for mutation in MUTATIONS}) == len(MUTATIONS)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.breaks)
def test_a_mutation_applies(mutation: Mutation) -> None:
    text = (SOURCE / mutation.file).read_text("utf-8")
    assert text.count(mutation.old) == 1
    mutated = text.replace(mutation.old, mutation.new)
    assert mutated != text
    compile(mutated, mutation.file, "exec")
