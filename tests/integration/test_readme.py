"""README.md as a reader follows it: every command, in a block or a sentence, on three cases of a tiny dataset."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.evaluation.report import synthetic
from tests.integration.commands import Project, inputs, shrink
from tests.integration.readme import OURS, README, blocks, within_sentences
from tests.tiny import DATASET

ROOT = Path(__file__).resolve().parents[2]
SHORT = {"num_epochs": 1, "num_iterations_per_epoch": 1, "num_val_iterations_per_epoch": 1, "optimizer": "adamw",
         "mirror_axes": []}  # fmt: skip
# the reader's dataset, and what a computer without a GPU and a short test need; each has to be there to be replaced
TINY = {
    r"^pip install \.$\n": "",  # the package is installed
    r"^export nnUNet_extTrainer=\$\(nnunet_ssl path\)$\n": "",  # Project does that
    r"-d 4\b": "-d 901",
    r"nnUNetv2_train 4\b": "nnUNetv2_train 901",
    r"Dataset004_Hippocampus": DATASET,
    r"(nnUNetv2_(?:train|predict) .*?)(?: -device cpu)?$": r"\1 -device cpu",
    r"(nnUNetv2_predict .*)$": r"\1 -npp 1 -nps 1",
    r"(nnUNetv2_plan_and_preprocess .*)$": r"\1 -npfp 1 -np 1",
    r"(nnunet_ssl preprocess .*)$": r"\1 -np 1",
    r"--patch 32 40 32": "--patch 16 16 16",  # no larger than the images
    r"num_epochs=\d+": "num_epochs=1",
    r"(nnUNetv2_train 901 3d_fullres) 0( -tr nnUNetTrainerFixMatch -device cpu)\n(?=nnUNetv2_predict .* -f 0 1 2)":
        r"\1 0\2\n\1 1\2\n\1 2\2\n",  # "then folds 0, 1, 2"
    # what they train is tested by itself; here they check everything and write the jobs
    r"(nnunet_ssl (?:benchmark|selftrain) .*?)(?: --look)?$": r"\1 -device cpu --write sh",
    r"(nnunet_ssl benchmark .*) -o OUT": r"\1 -o OUT_BENCHMARK",
    r"(nnunet_ssl selftrain .*) -o OUT": r"\1 -o OUT_ROUNDS",
    r"^nnunet_ssl report OUT$": "nnunet_ssl report finished/out",  # of a benchmark that has trained
}  # fmt: skip
WITHIN = {  # command within a sentence -> as it is run; one that needs more says what
    "nnunet_ssl methods": "nnunet_ssl methods",
    "nnunet_ssl methods -tr nnUNetTrainerFixMatch": "nnunet_ssl methods -tr nnUNetTrainerFixMatch",
    "nnunet_ssl methods --for 4": "nnunet_ssl methods --for 901",
    "nnunet_ssl predict-as-paper": "nnunet_ssl predict-as-paper --help",
    "nnunet_ssl figure": "nnunet_ssl figure --help",
    "nnUNetv2_train ... --c": "nnUNetv2_train 901 3d_fullres 0 -tr nnUNetTrainerFixMatch -device cpu --c",
}
EXAMINED = "nnunet_ssl doctor"  # the first part of what the same command with -d does, in a block


def test_every_command_within_a_sentence_is_run():
    assert set(within_sentences(README)) == {EXAMINED, *WITHIN, *OURS}
    assert f"\n{EXAMINED} -d 4\n" in blocks(README)
    for command, file in OURS.items():
        assert f'"{command}"' in (ROOT / file).read_text(encoding="utf-8")


def test_what_is_collected():
    page = "`nnunet_ssl`, `nnunet_ssl\n doctor`; `nnUNetv2_train 4`\n```bash\nnnunet_ssl a \\\n  -b  # why\nc\n```\n"
    assert within_sentences(page) == ["nnunet_ssl doctor", "nnUNetv2_train 4"]
    assert blocks(page) == "nnunet_ssl a -b\nc\n"


def commands(project: Project) -> list[tuple[str, ...]]:
    """Those of all blocks, in the order of the page."""
    text = blocks(README)
    for pattern, tiny in TINY.items():
        text, replaced = re.subn(pattern, tiny, text, flags=re.MULTILINE)
        assert replaced, pattern
    text = re.sub(r"\$(nnUNet_\w+)", lambda match: str(project.root / match[1]), text)
    return [tuple(shlex.split(line)) for line in text.splitlines() if line]


@pytest.mark.slow
def test_every_command(make_dataset):
    project = Project(make_dataset(labeled=3, preprocess=False).parents[1], DATASET)
    shutil.rmtree(project.preprocessed)
    inputs(project, project.root / "IN")
    cases = [path.name.removesuffix(".nii.gz") for path in sorted((project.raw / "labelsTr").iterdir())]
    synthetic.build(project.root / "finished", folds={0: ("case_0", "case_1")}, seeds=(0,), failed=())
    (project.root / "groups.json").write_text(json.dumps({case: f"patient_{case}" for case in cases}))

    plan, *others = commands(project)
    assert plan[0] == "nnUNetv2_plan_and_preprocess"
    project.run_each(plan)
    make_small(project.preprocessed / "nnUNetPlans.json")
    few = [line for line in others if line[:2] == ("nnunet_ssl", "splits") and "--folds" in line]
    assert len(few) == 1
    # with three cases there is no fold 0 before the page's own command makes it
    project.run_each(others.pop(0), *few)
    done = set(few)
    for line in others:
        if line not in done:  # the page names one training twice
            project.run_each(line, nnUNet_n_proc_DA="0")
            done.add(line)
    for command in WITHIN.values():
        output = project.run_each(tuple(shlex.split(command)), nnUNet_n_proc_DA="0")
        assert "usage: nnunet_ssl" in output or "--help" not in command

    results = project.results("nnUNetTrainerFixMatch", "nnUNetPlans", "3d_fullres")
    assert sorted(path.name for path in results.glob("fold_*")) == ["fold_0", "fold_1", "fold_2", "fold_all"]
    assert len(list((project.root / "OUT").glob("*.nii.gz"))) == 2
    control = project.results("nnUNetTrainerSupervised", "nnUNetPlans_l10", "3d_fullres") / "fold_0" / "validation"
    assert list(control.glob("evaluation*.csv"))
    jobs = json.loads((project.root / "OUT_BENCHMARK" / "manifest.json").read_text())["jobs"]
    assert {job["trainer"] for job in jobs} == {"nnUNetTrainerFixMatch", "nnUNetTrainerCPS", "nnUNetTrainerSupervised"}
    assert (project.root / "OUT_ROUNDS" / "selftrain.json").is_file()
    assert "nnUNetTrainerMeanTeacher" in (project.root / "finished" / "out" / "report" / "report.md").read_text()


def make_small(plans: Path) -> None:
    """What nnU-Net has planned, with a network and a length for a CPU and a test."""
    shrink(plans, {"3d_fullres": [16, 16, 16]})
    content = json.loads(plans.read_text())
    plans.write_text(json.dumps({**content, "nnunet_ssl": {"training": SHORT}}))
