"""Which cases are kept."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.selftrain.selection.decide import best, decide, refuse_too_few, unusual_volumes
from nnunet_ssl.selftrain.settings import SelfTraining


@dataclass(frozen=True)
class Case:
    score: float | None
    shown: bool = True
    labeled: bool = True


def settings(**values) -> SelfTraining:
    return SelfTraining("Dataset901_Tiny", "3d_fullres", **values)


def kept(cases: dict[str, Case], round_number: int = 1, **values) -> list[str]:
    return [case for case, decision in decide(cases, settings(**values), round_number).items() if decision.kept]


def test_a_threshold_is_reached_by_what_is_at_least_as_high():
    cases = {"a": Case(0.9), "b": Case(0.7746), "c": Case(1.0), "d": Case(None)}
    assert kept(cases) == ["a", "c"]
    reasons = {case: decision.reason for case, decision in decide(cases, settings(), 1).items()}
    assert reasons["b"] == "agreement 0.775 is below 0.9" and reasons["a"] == "agreement 0.900 is at least 0.9"
    assert reasons["d"] == "no class has a score for agreement"


def test_without_foreground_keep_empty_decides():
    cases = {"none": Case(None, shown=False, labeled=False), "one": Case(0.0, labeled=False), "all": Case(1.0)}
    assert kept(cases) == ["all"]
    assert kept(cases, keep_empty=True) == ["none", "all"]  # what one teacher finds and another does not stays at 0
    assert kept(cases, select="none") == ["all"]
    assert kept(cases, select="none", keep_empty=True) == ["none", "one", "all"]
    for lenient in ({"threshold": 0}, {"keep_fraction": 1.0}):  # an empty label teaches to miss, however it got there
        assert kept(cases, **lenient) == ["all"]
        assert kept(cases, **lenient, keep_empty=True) == ["none", "one", "all"]


def test_the_best_share_is_rounded_up_and_ties_go_by_name():
    scores = {"d": 0.5, "c": 0.7, "b": 0.7, "a": 0.1, "e": None}
    assert best(scores, 0.5) == {"b", "c"}
    assert best(scores, 0.25) == {"b"}
    assert best(scores, 0.51) == {"b", "c", "d"}
    assert best(scores, 1.0) == {"a", "b", "c", "d"}
    assert best({}, 0.5) == set()
    assert best({str(i): 1 - i / 100 for i in range(10)}, 0.7) == {str(i) for i in range(7)}  # 0.7 x 10 is 7.000000001
    cases = {case: Case(score) for case, score in scores.items()}
    assert kept(cases, keep_fraction=0.5, threshold=0.99) == ["c", "b"]


def test_stability_has_nothing_to_compare_with_in_the_first_round():
    cases = {"a": Case(None), "b": Case(0.3)}
    assert kept(cases, select="stability") == ["a", "b"]
    assert kept({"a": Case(0.95), "b": Case(0.3)}, 2, select="stability") == ["a"]


def test_too_few_cases_end_the_run_with_a_sentence():
    cases = {"a": Case(0.6), "b": Case(0.7), "c": Case(0.95)}
    scores = {case: found.score for case, found in cases.items()}
    chosen = decide(cases, settings(), 1)
    refuse_too_few(chosen, scores, settings(min_cases=1))
    with pytest.raises(SemiSupervisedError) as caught:
        refuse_too_few(chosen, scores, settings(min_cases=2))
    assert str(caught.value).startswith(
        "1 of 3 cases are kept, fewer than --min-cases 2. The highest scores: 0.950, 0.700, 0.600.\n"
    )
    assert "lower --threshold than 0.9" in str(caught.value)
    with pytest.raises(SemiSupervisedError, match="higher --keep-fraction than 0.3"):
        refuse_too_few(chosen, scores, settings(min_cases=2, keep_fraction=0.3))
    nothing = {"a": Case(None, shown=False, labeled=False)}
    with pytest.raises(SemiSupervisedError, match="The teachers find nothing: train them longer"):
        refuse_too_few(decide(nothing, settings(), 1), {"a": None}, settings())


def test_volumes_far_from_those_of_the_labelled_cases_are_named():
    labeled = {"liver": [1000.0, 1500.0], "spleen": [0.0, 90.0], "cyst": [0.0]}
    assert unusual_volumes({"liver": 1200, "spleen": 300, "cyst": 7}, labeled) == ["spleen"]
    assert unusual_volumes({"liver": 4500, "spleen": 30}, labeled) == []  # a factor of three is not more than three
    assert unusual_volumes({"liver": 4501, "spleen": 29.9}, labeled) == ["liver", "spleen"]
    assert unusual_volumes({"liver": 0, "spleen": 0}, labeled) == []  # nothing found is no volume
