"""How the papers' tables are scored, where that differs from this package's own way.

Formulas: docs/reference/metrics.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from nnunet_ssl.evaluation.scoring.definitions import METRICS


@dataclass(frozen=True)
class Convention:
    """What a table holds. Distances are in voxels, as if the spacing were 1.

    Attributes:
        name: of ``--convention``.
        title: whose tables, in words.
        source: where it is written.
        reported: metrics of the tables; the others get no value.
        missed, false_positive, true_negative: metric -> value where one mask or both are empty.
        by_slice: each slice along the first axis counts as a case, in 2D.
    """

    name: str
    title: str
    source: str
    reported: tuple[str, ...]
    missed: dict[str, float] = field(default_factory=dict)
    false_positive: dict[str, float] = field(default_factory=dict)
    true_negative: dict[str, float] = field(default_factory=dict)
    by_slice: bool = False

    def of_empty(self, status: str) -> dict[str, float]:
        """Every metric of two masks of which one or both are empty; NaN without value."""
        given: dict[str, float] = getattr(self, status)
        return {name: given.get(name, math.nan) for name in METRICS}

    def described(self) -> dict[str, str]:
        """What differs from this package's own definitions, for the output."""
        words = {
            "convention": f"{self.name}: {self.title} ({self.source}); only {', '.join(self.reported)} are reported",
            "hd95": "95th percentile of the distances of both directions pooled, as medpy's hd95",
            **{status: f"{text}: {_values(getattr(self, status))}" for status, text in STATUS_TEXTS.items()},
        }
        if "hd95" not in self.reported:
            del words["hd95"]
        if self.by_slice:
            words["case"] = "every slice along the first axis is a case of its own, scored in 2D"
        return words


STATUS_TEXTS = {
    "missed": "in the reference, not predicted",
    "false_positive": "predicted, not in the reference",
    "true_negative": "neither predicted nor in the reference",
}


def _values(given: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in given.items()) or "no values"


_MISSING = {"dice": 0.0, "asd": 128.0}
_NOTHING = {"dice": 0.0, "jaccard": 0.0, "hd95": 0.0, "asd": 0.0}

CONVENTIONS = {
    convention.name: convention
    for convention in (
        Convention(
            "skcdf",
            "tables of SKCDF and DHC on Synapse and AMOS",
            "DHC's released code/evaluate_Ntimes.py at a6f72d3",
            ("dice", "asd"),
            missed=_MISSING,
            false_positive=_MISSING,
            true_negative={"dice": 0.01, "asd": 0.0},  # the code sets 1 on the scale to 100
        ),
        Convention(
            "uamt",
            "tables of DKUXNet and of Dual Networks, on the left atrium and the pancreas",
            "UA-MT's released code/test_util.py at 80d0a34",
            ("dice", "jaccard", "hd95", "asd"),
            missed=_NOTHING,
            false_positive={"dice": 0.0, "jaccard": 0.0},
            true_negative=_NOTHING,
        ),
        Convention(
            "plgcl",
            "tables of PLGCL on ACDC, KiTS19 and CRAG",
            "SSL4MIS' code/test_2D_fully.py at 01ecaa9, from which PLGCL's released code descends",
            ("dice", "hd95", "asd"),
            missed={"dice": 0.0},
            false_positive={"dice": 0.0},
        ),
        Convention(
            "cmaformer",
            "tables of CMAformer on LiTS and Synapse",
            "released test script of CMAformer",
            ("dice",),
            missed={"dice": 0.0},
            false_positive={"dice": 0.0},
            true_negative={"dice": 1.0},
            by_slice=True,
        ),
    )
}
