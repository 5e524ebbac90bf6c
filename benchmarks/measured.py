"""Write what follows from docs/benchmarks/few_labels_runs.csv: the means that `methods --for` reads, and tables.

    python benchmarks/measured.py

Per comparison and trainer with its defaults: number of runs, their mean, lowest and highest Dice, those of the control
on the same labels, and its mean on all of them, in runs as long, in nnunet_ssl/recommendation/measured.csv; and from
these the tables of docs/which-method.md (which_method.py). Means have six decimals, so that a difference of two is
rounded when it is shown, and only then.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import which_method

from nnunet_ssl.recommendation.evidence import Measured
from nnunet_ssl.system.whole_files import write_whole

ROOT = Path(__file__).resolve().parents[1]
RUNS = ROOT / "docs" / "benchmarks" / "few_labels_runs.csv"
MEASURED = ROOT / "nnunet_ssl" / "recommendation" / "measured.csv"
CONTROL = "nnUNetTrainerSupervised"
DECIMALS = 6
COMPARISONS = {
    "ACDC": {
        "data": "ACDC, 3 of 70 patients labelled", "dimensions": 2, "steps": 2000, "page": "acdc_few_labels",
        "classes": 3,
    },
    "left atrium": {
        "data": "left atrium, 2 of 64 scans labelled", "dimensions": 3, "steps": 1000, "page": "left_atrium_few_labels",
        "classes": 1,
    },
}  # fmt: skip


def measured() -> pd.DataFrame:
    """One row per comparison and trainer, the best first."""
    runs = pd.read_csv(RUNS)
    runs = runs[runs["hyperparameters"].isna()]
    rows = []
    for dataset, facts in COMPARISONS.items():
        own = runs[(runs["dataset"] == dataset) & (runs["steps"] == facts["steps"])]
        scarce, everything = own[own["split"] != "all"], own[own["split"] == "all"]
        control = scarce.loc[scarce["trainer"] == CONTROL, "dice"]
        for trainer, group in scarce[scarce["trainer"] != CONTROL].groupby("trainer"):
            dice = group["dice"]
            rows.append(
                {
                    **facts, "trainer": trainer, "runs": len(dice), "dice": dice.mean(), "lowest": dice.min(),
                    "highest": dice.max(), "control": control.mean(), "control_lowest": control.min(),
                    "control_highest": control.max(), "control_runs": len(control),
                    "all_labels": everything["dice"].mean(),
                }
            )  # fmt: skip
    return pd.DataFrame(rows).sort_values(["page", "dice"], ascending=[True, False]).round(DECIMALS)


def page() -> str:
    """The page with its tables as they should be."""
    rows = [Measured(**row) for row in measured().to_dict("records")]
    return which_method.updated(which_method.PAGE.read_text(encoding="utf-8"), rows)


if __name__ == "__main__":
    measured().to_csv(MEASURED, index=False)
    write_whole(str(which_method.PAGE), page().encode())
