"""With fewer labelled cases than nnU-Net's folds every trainer says what to do; classes without label are warned of."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunet_ssl.data.splits import Fold
from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.trainers import TRAINERS
from nnunet_ssl.trainers.mean_teacher import nnUNetTrainerMeanTeacher
from nnunet_ssl.trainers.supervised import nnUNetTrainerSupervised
from tests.helpers_splits import write_nnunet_folds
from tests.running import CASES, hide, make_trainer, write_split
from tests.trainers.registered import make_registered


def test_every_trainer_refuses_before_it_writes(make_dataset):
    dataset = make_dataset(labeled=3, preprocess=False)
    results = dataset.parents[1] / "nnUNet_results"
    for name in TRAINERS:
        with pytest.raises(SemiSupervisedError, match=r"3 labelled cases are too few(.|\n)* all (.|\n)*--folds 3"):
            make_registered(dataset, name, "3d_fullres")
    assert list(results.iterdir()) == []


def test_fold_all_and_own_folds_and_a_split_are_trained(make_dataset):
    dataset = make_dataset(labeled=3, preprocess=False)
    three = CASES[:3]
    assert sorted(make_trainer(dataset, nnUNetTrainerSupervised, fold="all").do_split()[1]) == three
    write_split(dataset, Fold(three[:1], three[1:2], three[2:]))
    assert make_trainer(dataset, nnUNetTrainerSupervised, split="n2").do_split() == (three[:1], three[2:])
    write_nnunet_folds(dataset, [(three[:2], three[2:])])
    assert make_trainer(dataset, nnUNetTrainerSupervised).do_split() == (three[:2], three[2:])
    with pytest.raises(SemiSupervisedError, match=r"splits_final.json has no fold 1\. Folds: 0\."):
        make_trainer(dataset, nnUNetTrainerSupervised, fold=1)


def warnings_of(trainer) -> list[str]:
    trainer.on_train_start()
    lines = Path(trainer.log_file).read_text().splitlines()
    return [line.split("WARNING: ")[1].strip() for line in lines if "WARNING: No labelled case" in line]


@pytest.mark.parametrize("trainer", [nnUNetTrainerSupervised, nnUNetTrainerMeanTeacher])
def test_a_class_that_no_labelled_case_shows_is_warned_of(make_dataset, trainer, no_figures):
    dataset = make_dataset()
    write_split(dataset)  # two labelled cases
    assert warnings_of(make_trainer(dataset, trainer, split="n2")) == []
    for case in CASES[:2]:
        hide(dataset, case, 2)
    for case in CASES[2:5]:  # withheld: not opened for this
        (dataset / "nnUNetPlans_3d_fullres" / f"{case}.pkl").write_bytes(b"garbage")
    (warning,) = warnings_of(make_trainer(dataset, trainer, split="n2"))
    assert warning.startswith("No labelled case of fold 0 shows box: nothing teaches it.")
    assert warning.endswith("nnunet_ssl doctor -d 901 -p nnUNetPlans")
