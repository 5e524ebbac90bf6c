"""Everything that would stop a self-training, looked at before any work; every fault is put on one list."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw

from nnunet_ssl.data.folders import name_problem
from nnunet_ssl.data.image_checks import check_images, needs_of
from nnunet_ssl.data.pool_remedies import IMAGES, cases_in
from nnunet_ssl.data.text_files import read_text
from nnunet_ssl.data.workers import Workers, usable_cores
from nnunet_ssl.errors import SemiSupervisedError, one_line, some
from nnunet_ssl.evaluation.benchmark.checks import check_folders, entries, examine, not_writable
from nnunet_ssl.evaluation.benchmark.manifest import Experiment
from nnunet_ssl.planning.plans_copy import make_plans_copy
from nnunet_ssl.selftrain import disk
from nnunet_ssl.selftrain.keys import Keys
from nnunet_ssl.selftrain.option_checks import option_problems
from nnunet_ssl.selftrain.pool import same_images
from nnunet_ssl.selftrain.run import Run
from nnunet_ssl.selftrain.settings import ENTROPY, IGNORE
from nnunet_ssl.selftrain.steps import PREDICT, SELECT
from nnunet_ssl.system.whole_files import write_whole
from nnunet_ssl.trainers import CONTROL

CHECKED = "pool_checked.txt"  # in OUT: the hash of a pool whose images were all read


def problems_of(run: Run) -> list[str]:
    """One line each; empty if the run can begin."""
    found = [*option_problems(run.settings), *check_folders(run.output)]
    for variable in (nnUNet_raw, nnUNet_preprocessed):
        if not variable.get():
            found.append(f"the environment variable {variable.env_var_name} is not set")
        elif reason := not_writable(str(variable)):
            found.append(f"{variable.env_var_name}: {variable} {reason}")
    of_data = _data_problems(run)
    if found or of_data:
        return [*found, *of_data]
    if run.settings.rounds == 0:
        return []
    return [*_pool_problems(run), *_label_problems(run)] or [*_disk_problems(run), *_left_problems(run)]


def _data_problems(run: Run) -> list[str]:
    """Dataset, plans, configuration, preprocessed data, split and fold, settings; asked as a benchmark asks."""
    settings, found = run.settings, []
    splits = (settings.split,) if settings.split is not None else ()
    plans = dict.fromkeys((settings.plans, settings.student_plans))
    for name in plans:
        experiment = Experiment(
            settings.dataset, (settings.configuration,), (CONTROL,), splits, name, tuple(run.fold_numbers)
        )
        found += examine(experiment, unlabeled=False).problems
    if found:
        return list(dict.fromkeys(found))
    for name, content in ((settings.plans, run.plans), (settings.student_plans, run.student_plans)):
        try:
            make_plans_copy(content, name, settings.split, settings.training, {})
        except SemiSupervisedError as error:
            found += entries(error)
    if not os.path.isfile(os.path.join(run.raw, "dataset.json")):
        found.append(f"{run.raw} has no dataset.json: self-training needs the raw images and labels, too")
    found += _said_by(lambda: run.folds)
    return list(dict.fromkeys(found))


def _said_by(look: Callable[[], object]) -> list[str]:
    try:
        look()
    except SemiSupervisedError as error:
        return [one_line(error)]
    return []


def _pool_problems(run: Run) -> list[str]:
    folder = run.unlabeled.path
    missing = sorted({*run.labeled, *run.withheld} - set(run.files))
    if missing:
        return [f"{run.raw} lacks the images of {some(missing)}"]
    missing = [case for case in run.labeled if not os.path.isfile(run.files[case]["label"])]
    if missing:
        return [f"{run.raw} lacks the labels of {some(missing)}, which students read there"]
    if not run.pool:
        return [_no_pool(run, folder)]
    found = [f"{case} of {folder} is also a case of imagesTr" for case in run.unlabeled.cases if case in run.files]
    found += _test_images(run) if not run.settings.transductive else []
    others = {case: files for case, files in run.pool.items() if case not in run.labeled}
    same = same_images(others, (run.files[case]["images"][0] for case in run.labeled))
    found += [f"{case} of the pool is the same image as the labelled case {file} -> remove one of them"
              for case, file in same.items()]  # fmt: skip
    return found or _unreadable(run)


def _no_pool(run: Run, folder: str) -> str:
    words = f"there is no image without label: {folder} is missing or empty"
    if run.settings.split is None:
        return f"{words}, and no split withholds labels -> put images there, or name a split with --split"
    if len(run.folds) > 1:
        return f"{words}, and no case is withheld in all {len(run.folds)} folds of the teachers -> put images there"
    return f"{words}, and the split withholds no label -> put images there, or name another split with --split"


def _test_images(run: Run) -> list[str]:
    """By case id or by content. Test images among the unlabelled ones make every result on them a transductive one."""
    folder = os.path.join(run.raw, "imagesTs")
    tests = cases_in(folder, run.ending)
    named = set(run.pool) & set(tests)
    others = {case: files for case, files in run.pool.items() if case not in named}
    same = same_images(others, (os.path.join(folder, f"{case}_0000{run.ending}") for case in tests))
    remedy = f"remove them from {IMAGES}, or say --transductive, which every table then names"
    found = [f"test images are in the pool: {some(named)} -> {remedy}"] if named else []
    return found + [f"{case} of the pool is the same image as {file} -> {remedy}" for case, file in same.items()]


def _unreadable(run: Run) -> list[str]:
    """Every image is really read, once: nnU-Net would end in the middle of a prediction."""
    if _is_checked(run):
        return []
    needs = needs_of(run.plans, [run.settings.configuration], run.dataset_json)
    try:
        processes = int(os.environ.get("nnUNet_def_n_proc", usable_cores()))
        with Workers(max(1, min(usable_cores(), processes, len(run.pool)))) as workers:
            check_images("the pool", run.pool, needs, workers)
    except SemiSupervisedError as error:
        return entries(error)
    return []


def note_checked_pool(run: Run) -> None:
    """So that the next start does not read every image again."""
    if not _is_checked(run):
        write_whole(os.path.join(run.output, CHECKED), run.pool_hash.encode())


def _is_checked(run: Run) -> bool:
    path = os.path.join(run.output, CHECKED)
    return os.path.isfile(path) and read_text(path) == run.pool_hash


def _label_problems(run: Run) -> list[str]:
    settings, regions = run.settings, any(len(kind.values) > 1 for kind in run.labels.classes)
    found = []
    if regions and settings.voxels == IGNORE:
        found.append("--voxels ignore: this dataset has regions, for which it is not supported -> --voxels all")
    if regions and settings.select == ENTROPY:
        found.append("--select entropy: this dataset has regions, whose probabilities do not sum to 1 -> agreement")
    found += [f"the students' dataset {p}" for p in map(name_problem, settings.datasets) if p]
    return found


def _disk_problems(run: Run) -> list[str]:
    keys = Keys(run)
    left = sum(step.kind == SELECT and not keys.is_complete(step) for step in keys.steps.values())
    return disk.problems(run, left)


def _left_problems(run: Run) -> list[str]:
    """Predictions of an earlier start without the probabilities that are asked for now; they took GPU time."""
    if not run.settings.needs_probabilities:
        return []
    keys, folders = Keys(run), []
    for step in keys.steps.values():
        folder = run.teacher_folder(step.round, step.member or 0)
        if step.kind == PREDICT and _predicted_without(folder, run.pool, run.ending):
            folders.append(folder)
    return [
        f"{folder} was predicted without probabilities, which are needed now -> delete it to predict again, or give "
        "another folder with -o"
        for folder in folders
    ]


def _predicted_without(folder: str, cases: Iterable[str], ending: str) -> bool:
    def there(name: str) -> bool:
        return os.path.isfile(os.path.join(folder, name))

    return any(there(case + ending) and not there(f"{case}.npz") for case in cases)
