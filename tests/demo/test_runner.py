"""The demo's parts: commands, resuming, failures, plans, numbers and picture. `make demo` runs the whole."""

import dataclasses
import json
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import psutil
import pytest
import SimpleITK as sitk

from nnunet_ssl.cli import main
from nnunet_ssl.demo import figure, results
from nnunet_ssl.demo.options import DEMO_PLANS, Options, check_options
from nnunet_ssl.demo.plan import shrink_plans
from nnunet_ssl.demo.runner import Progress, prepare_folder, run_command, run_demo
from nnunet_ssl.demo.steps import HYPERPARAMETERS, Step, environment, preprocessing_steps, training_steps
from nnunet_ssl.demo.synthetic import Sizes, write_dataset
from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.planning.plans_copy import make_plans_copy, parse_assignments, parse_trainer_assignments
from tests.waiting import gone, until


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(tmp_path / "demo")


def python_step(code: str) -> Step:
    return Step("step", "a command", ("python", "-c", code))


# ---- the output folder


def test_a_foreign_folder_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(SemiSupervisedError, match="was not made by the demo"):
            prepare_folder(tmp_path, overwrite)
    assert (tmp_path / "thesis.txt").read_text() == "precious"


@pytest.mark.parametrize(
    "state", ['{"steps": {}}', '{"made_by": "another demo", "steps": {}}', "[]", "{", '{"made_by": "nnunet_ssl demo"}']
)
def test_a_demo_json_of_others_does_not_make_a_folder_ours(tmp_path: Path, state: str) -> None:
    (tmp_path / "demo.json").write_text(state)
    (tmp_path / "thesis.txt").write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(SemiSupervisedError, match="was not made by the demo"):
            prepare_folder(tmp_path, overwrite)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["demo.json", "thesis.txt"]


def test_overwrite_empties_a_folder_of_the_demo_and_nothing_else_does(tmp_path: Path) -> None:
    output = tmp_path / "new"
    prepare_folder(output, overwrite=False)
    (output / "logs").mkdir()
    prepare_folder(output, overwrite=False)
    assert (output / "logs").is_dir()
    prepare_folder(output, overwrite=True)
    assert [p.name for p in output.iterdir()] == ["demo.json"]


def test_a_step_done_with_another_command_is_an_error(tmp_path: Path) -> None:
    Progress(tmp_path).finish("train", ["nnUNetv2_train", "999"], 3.0)
    again = Progress(tmp_path)
    assert again.seconds("train", ["nnUNetv2_train", "999"]) == 3.0
    assert again.seconds("predict", ["nnUNetv2_predict"]) is None
    with pytest.raises(SemiSupervisedError, match=r"there: nnUNetv2_train 999\n.*now: +nnUNetv2_train 5"):
        again.seconds("train", ["nnUNetv2_train", "5"])


# ---- one command


def test_a_command_sees_the_variables_and_its_output_is_logged(tmp_path: Path) -> None:
    step = python_step("import os, sys; print(os.environ['nnUNet_raw']); print('warning', file=sys.stderr)")
    seconds = run_command(step, tmp_path / "logs" / "x.log", {"nnUNet_raw": "/some/where"})
    assert seconds > 0
    assert sorted((tmp_path / "logs" / "x.log").read_text().split()) == ["/some/where", "warning"]


def test_a_failing_command_stops_with_its_last_lines_and_the_log(tmp_path: Path) -> None:
    step = python_step("print(*range(100), sep='\\n'); raise ValueError('no luck')")
    with pytest.raises(SemiSupervisedError) as caught:
        run_command(step, tmp_path / "x.log", {})
    message = str(caught.value)
    assert "ended with code 1" in message
    assert "ValueError: no luck" in message
    assert str(tmp_path / "x.log") in message
    assert "- 99" in message
    assert "- 10\n" not in message
    assert (tmp_path / "x.log").read_text().startswith("0\n1\n")


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_command_ends_with_the_demo(tmp_path: Path, number: signal.Signals) -> None:
    """The signal goes to the demo alone, as from a scheduler or from `kill`."""
    step = python_step(f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)")
    context = multiprocessing.get_context("fork")
    process = context.Process(target=run_command, args=(step, tmp_path / "x.log", {}))
    process.start()
    until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "")
    command = psutil.Process(int((tmp_path / "pid").read_text()))
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join(30)
    until(lambda: gone([command]), 10)


# ---- the list of commands


def test_the_commands_are_nnunets_own(options: Options) -> None:
    steps = [*preprocessing_steps(options), *training_steps(options)]
    assert [s.command[0] for s in steps] == [
        "nnUNetv2_plan_and_preprocess",
        "nnunet_ssl",
        "nnunet_ssl",
        *["nnUNetv2_train", "nnUNetv2_predict", "nnUNetv2_evaluate_folder"] * 2,
    ]
    assert len({s.name for s in steps}) == len(steps)
    control, semi = (s.command for s in steps if s.command[0] == "nnUNetv2_train")
    swapped = ["nnUNetTrainerFixMatch" if word == "nnUNetTrainerSupervised" else word for word in control]
    assert swapped == list(semi)  # nothing but the trainer differs


def test_the_device_reaches_training_and_prediction(options: Options) -> None:
    steps = training_steps(dataclasses.replace(options, device="cuda"))
    for step in steps:
        on_device = step.command[0] in ("nnUNetv2_train", "nnUNetv2_predict")
        assert (step.command[-2:] == ("-device", "cuda")) == on_device


def test_everything_is_written_below_the_output_folder(options: Options) -> None:
    variables = environment(options)
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        assert Path(variables[name]).parent == options.output


@pytest.mark.parametrize("trainer", HYPERPARAMETERS)
def test_the_settings_are_valid(options: Options, trainer: str) -> None:
    command = list(training_steps(dataclasses.replace(options, trainer=trainer))[0].command)
    training, hyperparameters = (
        command[command.index("--training") + 1 : command.index("--hyperparameters")],
        command[command.index("--hyperparameters") + 1 :],
    )
    plans = {"plans_name": "x", "configurations": {}}
    parsed = parse_trainer_assignments(hyperparameters)
    assert set(parsed) == {trainer}
    assert make_plans_copy(plans, DEMO_PLANS, None, parse_assignments(training), parsed)["nnunet_ssl"]


def test_bad_options_are_refused_all_at_once(
    options: Options, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    bad = dataclasses.replace(options, trainer="nnUNetTrainerSupervised", dataset_id=1000, epochs=0, device="cuda")
    with pytest.raises(SemiSupervisedError) as caught:
        check_options(bad)
    for word in ("-tr nnUNetTrainerSupervised: choose", "-d 1000", "--epochs 0", "-device cuda"):
        assert word in str(caught.value)
    check_options(options)
    with pytest.raises(SemiSupervisedError, match="both trainers need the same length"):
        check_options(dataclasses.replace(options, trainer=f"{options.trainer}_5epochs", epochs=6))
    check_options(dataclasses.replace(options, trainer=f"{options.trainer}_5epochs", epochs=5))
    assert main(["demo", "-o", str(options.output), "-tr", "nnUNetTrainerNope"]) == 1
    assert "nnUNetTrainerNope" in capsys.readouterr().err
    assert not options.output.exists()


# ---- plans


def test_small_plans_keep_the_preprocessed_data() -> None:
    arch = {"n_stages": 6, "features_per_stage": [32, 64, 128, 256, 320, 320], "conv_bias": True}
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "patch_size": [96, 96, 96],
        "median_image_size_in_voxels": [41.5, 39.0, 6.0],
        "batch_size": 4,
        "spacing": [4.0, 4.0, 4.0],
        "architecture": {"network_class_name": "PlainConvUNet", "arch_kwargs": arch},
    }
    plans = {"plans_name": "nnUNetPlans", "configurations": {"2d": {}, "3d_fullres": configuration}}
    small = shrink_plans(plans, "3d_fullres", "nnUNetPlans_small")
    assert small["plans_name"] == "nnUNetPlans_small"
    assert list(small["configurations"]) == ["3d_fullres"]
    result = small["configurations"]["3d_fullres"]
    assert result["data_identifier"] == "nnUNetPlans_3d_fullres"
    assert result["spacing"] == [4.0, 4.0, 4.0]
    kwargs = result["architecture"]["arch_kwargs"]
    assert kwargs["conv_bias"] is True
    lengths = {len(kwargs[k]) for k in ("features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage")}
    assert lengths == {kwargs["n_stages"]}
    assert np.prod(kwargs["strides"], axis=0).tolist() == [8, 8, 8]
    assert result["patch_size"] == [40, 32, 8]
    assert plans["configurations"]["3d_fullres"]["patch_size"] == [96, 96, 96]  # the argument is not changed


# ---- numbers and picture


def write_predictions(options: Options, trainer: str, shift: int) -> None:
    """The reference moved by some voxels as prediction, with nnU-Net's summary of it."""
    folder = options.predictions(trainer)
    folder.mkdir(parents=True)
    shutil.copy(options.raw / "dataset.json", folder)
    per_case = []
    for path in sorted((options.raw / "labelsTs").iterdir()):
        image = sitk.ReadImage(str(path))
        reference = sitk.GetArrayFromImage(image)
        prediction = np.roll(reference, shift, axis=2)
        moved = sitk.GetImageFromArray(prediction)
        moved.CopyInformation(image)
        sitk.WriteImage(moved, str(folder / path.name))
        metrics = {}
        for label in range(1, 5):
            a, b = reference == label, prediction == label
            metrics[str(label)] = {"Dice": 2 * (a & b).sum() / (a.sum() + b.sum())}
        per_case.append({"prediction_file": str(folder / path.name), "metrics": metrics})
    (folder / "summary.json").write_text(json.dumps({"metric_per_case": per_case}))


@pytest.fixture
def finished(options: Options, monkeypatch: pytest.MonkeyPatch) -> Options:
    """A demo folder in which every command has run; the control is three voxels off, the other trainer one."""
    monkeypatch.setenv("nnUNet_extTrainer", "")
    prepare_folder(options.output, overwrite=False)
    write_dataset(options.raw.parent, options.dataset, options.seed, Sizes(1, 1, 2))
    options.preprocessed.mkdir(parents=True)
    configuration = {"median_image_size_in_voxels": [9.0] * 3, "architecture": {"arch_kwargs": {}}}
    plans = {"plans_name": "nnUNetPlans", "configurations": {"3d_fullres": configuration}}
    (options.preprocessed / "nnUNetPlans.json").write_text(json.dumps(plans))
    progress = Progress(options.output)
    progress.finish("dataset", ["seed", str(options.seed), options.dataset], 1.0)
    for step in [*preprocessing_steps(options), *training_steps(options)]:
        progress.finish(step.name, list(step.command), 60.0)
    for trainer, shift in zip(options.trainers, (3, 1), strict=True):
        write_predictions(options, trainer, shift)
    return options


def test_a_finished_demo_runs_nothing_again_and_shows_the_result(
    finished: Options, capsys: pytest.CaptureFixture[str]
) -> None:
    run_demo(finished)
    printed = capsys.readouterr().out
    assert printed.count("already done") == 9
    assert "semi-supervised" in printed.splitlines()[0].lower()
    assert "$ nnUNetv2_train 999 3d_fullres all -tr nnUNetTrainerFixMatch -p nnUNetPlans_demo -device cpu" in printed
    assert "higher; it is higher in 2 of 2 test cases" in printed
    numbers = json.loads((finished.output / "results.json").read_text())
    control, semi = (numbers[t] for t in finished.trainers)
    assert set(control["dice"]) == {"liver", "spleen", "kidneys", "pancreas"}
    assert set(control["cases"]) == {"demo_002", "demo_003"}
    assert semi["mean_dice"] > control["mean_dice"] + 0.1
    assert semi["training_seconds"] == 60.0
    png = (finished.output / "comparison.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    assert len(png) > 50_000


def scores(trainer: str, dice: list[list[float]]) -> results.Scores:
    return results.Scores(trainer, ("liver", "spleen"), ("a", "b"), np.array(dice), 10.0)


def test_the_table_shows_a_loss_as_a_loss() -> None:
    control = scores("nnUNetTrainerSupervised", [[0.9, 0.5], [0.7, 0.7]])
    semi = scores("nnUNetTrainerMeanTeacher", [[0.8, 0.6], [0.6, 0.2]])
    lines = results.table(control, semi).splitlines()
    assert lines[1].split() == ["liver", "0.800", "0.700", "-0.100"]
    assert lines[2].split() == ["spleen", "0.600", "0.400", "-0.200"]
    assert lines[4].split() == ["mean", "0.700", "0.550", "-0.150"]
    assert len({len(line) for line in lines[:5]}) == 1
    assert "0.150 lower; it is higher in 0 of 2 test cases" in results.conclusion(control, semi)


@pytest.mark.parametrize("gain", [0.0, 0.0002, -0.0002])
def test_a_tie_is_no_loss(gain: float) -> None:
    control = scores("nnUNetTrainerSupervised", [[0.9, 0.5], [0.7, 0.7]])
    semi = scores("nnUNetTrainerMeanTeacher", [[0.9 + gain, 0.5 + gain], [0.7 + gain, 0.7 + gain]])
    sentence = results.conclusion(control, semi)
    assert sentence.startswith("With the unlabelled images the mean Dice is the same to three decimals; it is higher")
    assert "lower" not in sentence


def test_an_organ_absent_in_every_case_has_no_number() -> None:
    never = scores("nnUNetTrainerSupervised", [[0.9, float("nan")], [0.7, float("nan")]])
    with pytest.warns(RuntimeWarning, match="empty slice"):
        content = results.as_json(never, never)["nnUNetTrainerSupervised"]
    assert (content["mean_dice"], content["dice"]) == (None, {"liver": 0.8, "spleen": None})


def test_an_organ_absent_in_a_case_is_left_out_of_the_means() -> None:
    some = scores("nnUNetTrainerSupervised", [[0.9, float("nan")], [0.7, 0.5]])
    assert some.per_organ.tolist() == pytest.approx([0.8, 0.5])
    assert some.mean == pytest.approx(0.65)
    text = json.dumps(results.as_json(some, some), allow_nan=False)
    assert json.loads(text)["nnUNetTrainerSupervised"]["cases"]["a"] == {"liver": 0.9, "spleen": None}


def test_the_slice_shows_most_of_all_organs() -> None:
    labels = np.zeros((6, 4, 4), np.uint8)
    labels[1] = 1  # large, alone
    labels[2:5, 0] = 1
    labels[3, 1, :2] = 2
    labels[4, 1, 0] = 2
    assert figure.best_slice(labels, 2) == 3
    assert figure.best_slice(np.zeros((3, 2, 2), np.uint8), 2) == 0
