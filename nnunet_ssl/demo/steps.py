"""The commands of the demo, in order: what a user would type."""

from __future__ import annotations

from dataclasses import dataclass

from nnunet_ssl.demo.options import CONFIGURATION, CONTROL, DEMO_PLANS, SMALL_PLANS, Options

TRAINING = (
    "num_iterations_per_epoch=50",
    "num_val_iterations_per_epoch=1",
    "optimizer=adamw",
    "initial_lr=0.003",
)
HYPERPARAMETERS = {
    "nnUNetTrainerMeanTeacher": ("consistency_weight=10", "student_view=strong", "rampup_fraction=0.5"),
    # SKCDF's own 0.99 lets the balanced heads over-segment in a training as short as this
    "nnUNetTrainerSKCDF": ("head_transfer_decay=1.0",),
}


@dataclass(frozen=True)
class Step:
    """One command: name of its log, what it does in a sentence, and the words typed."""

    name: str
    purpose: str
    command: tuple[str, ...]


# nnU-Net starts 8 processes here and 3 there; with images this small their start takes longer than their work.
FEW_PROCESSES = {"nnUNet_def_n_proc": "2", "nnUNet_npp": "1", "nnUNet_nps": "1"}


def environment(options: Options) -> dict[str, str]:
    """nnU-Net's folders below the output folder, and as many processes as are worth their start."""
    variables = {name: str(options.output / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    variables |= FEW_PROCESSES
    if options.device == "cpu":
        variables["nnUNet_n_proc_DA"] = "1"  # loading takes a tenth of a training step
    return variables


def preprocessing_steps(options: Options) -> list[Step]:
    """Up to the data of both streams. They do not need the demo's plans."""
    dataset = str(options.dataset_id)
    few = ("-npfp", "2", "-np", "2")
    return [
        Step(
            "plan_and_preprocess",
            "nnU-Net plans and preprocesses the labelled cases",
            ("nnUNetv2_plan_and_preprocess", "-d", dataset, "-c", CONFIGURATION, "--verify_dataset_integrity", *few),
        ),
        Step(
            "preprocess_unlabeled",
            "the images without labels, preprocessed alike",
            ("nnunet_ssl", "preprocess", "-d", dataset, "-c", CONFIGURATION),
        ),
    ]


def training_steps(options: Options) -> list[Step]:
    """Settings, then training, prediction and evaluation of the control and of the semi-supervised trainer."""
    hyperparameters = [f"{options.trainer}:{v}" for v in HYPERPARAMETERS.get(options.trainer, ())]
    training = (f"num_epochs={options.epochs}", *TRAINING)
    command = ["nnunet_ssl", "plans", "-d", str(options.dataset_id), "-p", SMALL_PLANS, "--name", DEMO_PLANS]
    command += ["--training", *training]
    command += ["--hyperparameters", *hyperparameters] if hyperparameters else []
    steps = [Step("plans", "the settings of both training runs", tuple(command))]
    for trainer in options.trainers:
        steps += _steps_of(options, trainer)
    return steps


def _steps_of(options: Options, trainer: str) -> list[Step]:
    """Fold `all`: of so few labelled cases none is spared for validation; the test cases are separate."""
    dataset, predictions = str(options.dataset_id), str(options.predictions(trainer))
    of_model = ("-tr", trainer, "-p", DEMO_PLANS)
    device = ("-device", options.device)
    files = ("-i", str(options.raw / "imagesTs"), "-o", predictions)
    descriptions = ("-djfile", f"{predictions}/dataset.json", "-pfile", f"{predictions}/plans.json")
    kind = "labelled cases only (the control)" if trainer == CONTROL else "labelled and unlabelled cases"
    return [
        Step(
            f"train_{trainer}",
            f"train on {kind}",
            ("nnUNetv2_train", dataset, CONFIGURATION, "all", *of_model, *device),
        ),
        Step(
            f"predict_{trainer}",
            "predict the test cases",
            ("nnUNetv2_predict", "-d", dataset, "-c", CONFIGURATION, "-f", "all", *of_model, *files, *device),
        ),
        Step(
            f"evaluate_{trainer}",
            "compare with the reference",
            ("nnUNetv2_evaluate_folder", str(options.raw / "labelsTs"), predictions, *descriptions),
        ),
    ]
