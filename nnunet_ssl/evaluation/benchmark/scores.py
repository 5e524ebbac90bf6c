"""The evaluation of a job: nnU-Net's validation predictions of the fold, and the predictions of a test set."""

from __future__ import annotations

import os
from dataclasses import dataclass

from nnunet_ssl.data.folders import preprocessed_base
from nnunet_ssl.data.splits import load_fold
from nnunet_ssl.evaluation.benchmark.checks import REFERENCES
from nnunet_ssl.evaluation.benchmark.jobs import Job
from nnunet_ssl.evaluation.benchmark.results import fold_folder


@dataclass(frozen=True)
class ToEvaluate:
    """Arguments of ``evaluate_folder``. ``cases``: None for all of the reference folder."""

    reference: str
    prediction: str
    output: str
    dataset_json: str
    cases: list[str] | None = None

    @property
    def words(self) -> list[str]:
        """The command that does the same; see evaluator.py for why it is not run as one."""
        words = ["nnunet_ssl", "evaluate", "-ref", self.reference, "-pred", self.prediction, "-o", self.output]
        return [*words, "-djfile", self.dataset_json, *(["--cases", *self.cases] if self.cases else [])]

    def run(self, processes: int) -> None:
        from nnunet_ssl.evaluation.scoring.evaluate import evaluate_folder

        evaluate_folder(
            self.reference,
            self.prediction,
            self.output,
            processes=processes,
            cases=self.cases,
            dataset_json=self.dataset_json,
        )


def evaluation_of_validation(job: Job, folder: str) -> ToEvaluate:
    """Of the fold's validation cases, against the labels as they were given, into the job's folder."""
    base = preprocessed_base(job.dataset)
    cases = load_fold(base, job.split, job.fold).val
    return ToEvaluate(
        os.path.join(base, REFERENCES),
        os.path.join(fold_folder(job), "validation"),
        folder,
        os.path.join(base, "dataset.json"),
        cases,
    )


def evaluation_of_test_set(job: Job, folder: str) -> ToEvaluate:
    assert job.test_labels is not None
    test = os.path.join(folder, "test")
    dataset_json = os.path.join(preprocessed_base(job.dataset), "dataset.json")
    return ToEvaluate(job.test_labels, os.path.join(test, "predictions"), test, dataset_json)
