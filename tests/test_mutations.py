"""Each mutation still stands in the code once, and its test is there."""

from tests.mutate import ROOT, file_of, mutations, test_of


def test_every_mutation_can_be_tried():
    found = mutations()
    assert {m.method for m in found} >= {"mean_teacher", "skcdf", "plgcl", "dual_networks", "dkuxnet", "ldc"}
    for mutation in found:
        assert mutation.old != mutation.new and file_of(ROOT, mutation) and test_of(ROOT, mutation)
