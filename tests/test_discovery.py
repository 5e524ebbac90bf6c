"""nnU-Net finds the trainers, whoever asks, and other people's plugins do not notice us."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from nnunet_ssl.cli import main
from nnunet_ssl.discovery import VARIABLE, ext_trainer_value, external_directory, register
from nnunet_ssl.errors import INSTALL
from nnunet_ssl.trainers import TRAINERS, find_trainer
from tests.helpers_discovery import find, receive_and_find

ROOT = Path(__file__).resolve().parents[1]
VARIANTS = [f"{trainer}_7epochs" for trainer in TRAINERS if trainer.endswith(("MeanTeacher", "_paper"))][:3]
NAMES = [*TRAINERS, *VARIANTS]


@pytest.fixture(autouse=True)
def variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, external_directory())


def in_fresh_process(script: str, folders: list[Path | str], *arguments: str) -> dict:
    """The JSON that the last printed line of ``script`` holds, run with nnUNet_extTrainer = ``folders``."""
    environment = {**os.environ, VARIABLE: os.pathsep.join(map(str, folders)), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", NAMES)
def test_found_by_nnunet_as_the_class_that_is_imported(name):
    found = find(name)
    assert found is find_trainer(name)
    assert found is find(name)
    assert found.__name__ == name
    module = sys.modules[found.__module__]
    assert found.__module__.startswith("nnunet_ssl.trainers.")
    assert getattr(module, name) is found
    assert pickle.loads(pickle.dumps(found)) is found


def test_a_variant_differs_from_its_trainer_in_the_number_of_epochs_only():
    base, variant = find("nnUNetTrainerMeanTeacher"), find("nnUNetTrainerMeanTeacher_7epochs")
    assert variant.__mro__[1] is base
    assert variant.length_variant_epochs == 7
    assert set(vars(variant)) == {"__module__", "__doc__", "length_variant_epochs"}
    assert find("nnUNetTrainerMeanTeacher_8epochs") is not variant


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_get_and_find_the_same_classes(method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        answers = pool.submit(receive_and_find, [find_trainer(name) for name in NAMES], NAMES).result(timeout=300)
    own = [f"{find_trainer(name).__module__}.{name}" for name in NAMES]
    assert answers == [(name, name, True) for name in own]


OTHERS = """
import json, os, sys
from nnunetv2.paths import nnUNet_extTrainer
from tests.helpers_discovery import find, identity

ours, theirs = sys.argv[1:]
answers = {}
for order, value in {"before": [theirs, ours], "after": [ours, theirs]}.items():
    os.environ["nnUNet_extTrainer"] = os.pathsep.join(value)
    found = find("nnUNetTrainerOfSomebodyElse")
    imported = sorted(name for name in sys.modules if name.split(".")[0] == "nnunet_ssl")
    answers[order] = [identity(found), imported]
for order, value in {"before": [theirs, ours], "after": [ours, theirs]}.items():
    os.environ["nnUNet_extTrainer"] = os.pathsep.join(value)
    answers[f"ours {order}"] = identity(find("nnUNetTrainerSupervised"))
answers["sibling"] = "nnunet_ssl.trainers.mean_teacher" in sys.modules
print(json.dumps(answers))
"""


def test_other_peoples_trainers_are_found_without_importing_ours(tmp_path):
    (tmp_path / "somebody_else.py").write_text(
        "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n"
        "class nnUNetTrainerOfSomebodyElse(nnUNetTrainer):\n    pass\n"
    )
    answers = in_fresh_process(OTHERS, [], external_directory(), str(tmp_path))
    theirs = ["somebody_else.nnUNetTrainerOfSomebodyElse", []]
    assert (answers["before"], answers["after"]) == (theirs, theirs)
    ours = "nnunet_ssl.trainers.supervised.nnUNetTrainerSupervised"
    assert (answers["ours before"], answers["ours after"]) == (ours, ours)
    assert answers["sibling"] is False  # only the trainer that was asked for


MISSING = """
import json, sys
from tests.helpers_discovery import block, find

block("nnunet_ssl")
answers = {}
for name in sys.argv[1:]:
    try:
        find(name)
    except Exception as error:
        answers[name] = [type(error).__name__, str(error)]
print(json.dumps(answers))
"""


def test_without_the_package_our_names_give_the_pip_line_and_others_nnunets_message(tmp_path):
    shutil.copytree(external_directory(), tmp_path / "external", ignore=shutil.ignore_patterns("__pycache__"))
    others = ["nnUNetTrainerNobodyHas", "nnUNetTrainerSupervised_epochs", "nnUNetTrainerSupervised_0epochs"]
    answers = in_fresh_process(MISSING, [tmp_path / "external"], *NAMES, *others)
    for name in NAMES:
        kind, message = answers[name]
        assert kind == "ModuleNotFoundError"
        assert message.startswith(f"{name} belongs to the package nnunet_ssl, which is not installed")
        assert message.endswith(f"Run: {INSTALL}")
    for name in others:
        kind, message = answers[name]
        assert kind == "RuntimeError"
        assert message.startswith(f"Could not find requested nnunet trainer {name}")


BROKEN = """
import importlib.machinery, json, sys

module, statement, directory, *names = sys.argv[1:]

class Broken:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        exec(statement, {})

sys.meta_path.insert(0, Broken())
sys.path.insert(0, directory)
import nnunet_ssl_trainers

answers = []
for name in names:
    try:
        answers.append(hasattr(nnunet_ssl_trainers, name))  # what nnU-Net asks; False: it says that there is none
    except Exception as error:
        answers.append([type(error).__name__, str(error)])
print(json.dumps(answers))
"""


@pytest.mark.parametrize("module", ["nnunet_ssl", "nnunet_ssl.trainers.mean_teacher"])
@pytest.mark.parametrize(
    ("statement", "kind", "text"),
    [
        ("import no_such_dependency", "ModuleNotFoundError", "No module named 'no_such_dependency'"),
        ("import os; os.nope", "ImportError", "{name} cannot be imported: module 'os' has no attribute 'nope'"),
    ],
)
def test_what_breaks_inside_the_package_is_not_taken_for_a_missing_package_or_trainer(module, statement, kind, text):
    names = ["nnUNetTrainerMeanTeacher", "nnUNetTrainerMeanTeacher_7epochs"]
    answers = in_fresh_process(BROKEN, [], module, statement, external_directory(), *names)
    assert answers == [[kind, text.format(name=name)] for name in names]


def test_the_shim_knows_every_trainer():
    namespace: dict = {"__name__": "shim"}
    exec(Path(external_directory(), "nnunet_ssl_trainers.py").read_text(), namespace)
    assert namespace["NAMES"] == tuple(TRAINERS)
    assert [entry.name for entry in Path(external_directory()).glob("*.py")] == ["nnunet_ssl_trainers.py"]
    for name in ("nnUNetTrainer", "NAMES_7epochs", "nnUNetTrainerSupervisedX", "__path__", ""):
        with pytest.raises(AttributeError, match=f"no attribute '{name}'"):
            namespace["__getattr__"](name)


@pytest.mark.parametrize(
    "name", ["nnUNetTrainer", "nnUNetTrainerNope", "nnUNetTrainerNope_7epochs", "nnUNetTrainerMeanTeacher_07epochs"]
)
def test_unknown_names_are_attribute_errors(name):
    with pytest.raises(AttributeError, match=f"no trainer '{name}'; it has nnUNetTrainerSupervised"):
        find_trainer(name)
    from nnunet_ssl.trainers import variants

    with pytest.raises(AttributeError):
        getattr(variants, name)


def test_path_keeps_what_is_set_and_adds_ours_once(monkeypatch, capsys):
    ours, join = external_directory(), os.pathsep.join
    cases = {
        None: ours,
        "": ours,
        ours: ours,
        "/a": join(["/a", ours]),
        join(["/a", "/b"]): join(["/a", "/b", ours]),
        join(["/a", ours, "/b"]): join(["/a", ours, "/b"]),
        join(["/a", ours, "", "/a", ours]): join(["/a", ours]),
    }
    for value, expected in cases.items():
        if value is None:
            monkeypatch.delenv(VARIABLE, raising=False)
        else:
            monkeypatch.setenv(VARIABLE, value)
        assert main(["path"]) == 0
        assert capsys.readouterr().out == expected + "\n"
        assert ext_trainer_value(expected) == expected  # typed twice, nothing changes
    assert Path(ours, "nnunet_ssl_trainers.py").is_file()


def test_the_same_directory_in_another_spelling_is_not_added(tmp_path):
    ours = external_directory()
    link = tmp_path / "link"
    link.symlink_to(ours)
    for spelling in (f"{ours}/", str(link), f"{link}/"):
        assert ext_trainer_value(spelling) == spelling
        assert ext_trainer_value(os.pathsep.join([ours, "/a", spelling])) == os.pathsep.join([ours, "/a"])


def test_register_is_for_this_process(monkeypatch):
    monkeypatch.setenv(VARIABLE, "/a")
    register()
    assert os.environ[VARIABLE] == os.pathsep.join(["/a", external_directory()])
