"""Each mutation still stands in the code once, and the test that must notice it is there."""

from __future__ import annotations

from tests import mutate


def test_every_mutation_can_be_tried():
    found = mutate.mutations()
    assert {m.method for m in found} >= {"mean_teacher", "skcdf", "plgcl", "dual_networks", "dkuxnet", "ldc"}
    for mutation in found:
        assert mutation.old != mutation.new, mutation
        assert mutate.file_of(mutate.ROOT, mutation) and mutate.test_of(mutate.ROOT, mutation)
