"""No place of the package gives a remedy that no row follows."""

from __future__ import annotations

from itertools import chain

from tests.remedies import (
    test_data,
    test_doctor,
    test_evaluation,
    test_figure,
    test_pool,
    test_selftrain,
    test_settings,
    test_training,
)
from tests.remedies.sites import remedies

TABLES = tuple(
    module.ROWS for module in (test_data, test_doctor, test_evaluation, test_figure, test_selftrain, test_training)
)
# Whose remedy cannot be followed here: another installation, another machine, more memory. What is said is tested.
SAID = {
    "console:find_command 1": "no row: pip installs nnU-Net's commands",
    "data.unlabeled:_run 1": "tests/data/test_unlabeled_refused.py::test_failures_of_the_preprocessor_are_collected",
    "data.workers:Workers.map 1": "tests/data/test_workers.py::test_a_dying_worker_is_an_error_with_the_...",
    "doctor.preflight:requirement_finding 2": "no row: pip installs packaging",
    "selftrain.predict:_all_there 1": "no row: the cause is in the log of nnU-Net's command",
    "selftrain.student_dataset:preprocess 1": "no row: the cause is in the log of nnU-Net's command",
    "trainers.dkuxnet.supervised:nnUNetTrainerDKUXNetSupervised.load_checkpoint 1": (
        "tests/trainers/dkuxnet/test_trainer.py::test_a_training_that_began_on_other_levels_is_not_continued"
    ),
    "evaluation.benchmark.slurm:_submit 1": "no row: the cluster decides",
}
# Places that pass on what another one says.
PASS_ON = {"doctor.report:from_error 1", "data.outdated:Outdated.text 1"}


def test_every_remedy_has_a_row():
    tried = {row.site for row in chain.from_iterable(table.values() for table in TABLES)}
    tried |= {*chain.from_iterable(row.who.values() for row in test_pool.ROWS.values())}
    tried |= {row[3] for row in test_settings.ROWS.values()}
    assert not set(remedies()) - tried - SAID.keys() - PASS_ON
    assert not (tried | SAID.keys() | PASS_ON) - set(remedies())
    assert not tried & (SAID.keys() | PASS_ON)
