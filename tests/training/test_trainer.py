"""The trainer contract, in process, on tiny synthetic datasets."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json, save_json
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from nnunet_ssl.data.batches import LabeledBatch
from nnunet_ssl.data.splits import Fold
from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.planning.plans_copy import write_plans_copy
from nnunet_ssl.planning.small_network import SmallNetwork
from nnunet_ssl.trainers.mean_teacher import nnUNetTrainerMeanTeacher
from nnunet_ssl.trainers.supervised import nnUNetTrainerSupervised
from nnunet_ssl.trainers.unimatch import nnUNetTrainerUniMatch_paper
from nnunet_ssl.training.deep_supervision import finest
from tests.running import CASES, FOLD, SHORT, make_trainer, same_weights, weights, write_split
from tests.tiny import DATASET
from tests.trainers.stepping import steps


def log_of(trainer) -> str:
    return Path(trainer.log_file).read_text()


@pytest.mark.usefixtures("no_figures")
class TestWithheldLabels:
    def test_no_file_of_theirs_but_the_image_is_needed(self, make_dataset):
        dataset = make_dataset(preprocess=False)
        shutil.rmtree(dataset.parents[1] / "nnUNet_raw" / DATASET / "imagesUn")
        write_split(dataset)
        for case in FOLD.unlabeled:
            (dataset / "nnUNetPlans_3d_fullres" / f"{case}_seg.b2nd").unlink()
            (dataset / "nnUNetPlans_3d_fullres" / f"{case}.pkl").unlink()
        trainer = make_trainer(dataset, nnUNetTrainerMeanTeacher, split="n2")
        trainer.run_training()
        assert sorted(trainer.streams.cases()) == sorted(FOLD.unlabeled)
        assert Path(trainer.output_folder, "checkpoint_final.pth").is_file()

    def test_monitoring_them_changes_no_weight_and_logs_their_dice(self, make_dataset):
        dataset = make_dataset()
        write_split(dataset)
        runs = []
        for monitor in (False, True):
            hyperparameters = {"monitor_withheld_labels": monitor}
            trainer = make_trainer(dataset, nnUNetTrainerMeanTeacher, split="n2", hyperparameters=hyperparameters)
            trainer.run_training()
            runs.append((weights(trainer.network), pd.read_csv(Path(trainer.output_folder, "semi_supervised.csv"))))
        assert same_weights(runs[0][0], runs[1][0])
        tables = [table for _, table in runs]
        assert "true_dice" not in tables[0] and tables[1]["true_dice"].between(0, 1).all()

    def test_monitored_dice_is_the_dice_of_the_true_label(self, make_dataset):
        dataset = make_dataset()
        write_split(dataset)
        hyperparameters = {"monitor_withheld_labels": True}
        trainer = make_trainer(dataset, nnUNetTrainerMeanTeacher, split="n2", hyperparameters=hyperparameters)
        trainer.on_train_start()
        _, unlabeled = trainer.split_batch(next(trainer.dataloader_train))
        label = trainer.monitor.withheld
        perfect = torch.nn.functional.one_hot(label.clamp(min=0).long().squeeze(1), 3).movedim(-1, 1) * 50.0
        trainer.observe_pseudo_labels(perfect, perfect, unlabeled.valid)
        means = trainer.monitor.epoch_means()
        assert means["coverage"] == means["agreement"] == 1.0
        if (label > 0).any():
            assert means["true_dice"] == 1.0


@pytest.mark.usefixtures("no_figures")
class TestPool:
    def pool_of(self, dataset: Path, **kwargs) -> dict[str, str]:
        return make_trainer(dataset, nnUNetTrainerMeanTeacher, **kwargs).streams.cases()

    def test_is_the_withheld_cases_and_the_images_without_label(self, make_dataset):
        dataset = make_dataset()
        write_split(dataset)
        pool = self.pool_of(dataset, split="n2")
        assert sorted(pool) == ["extra_000", "extra_001", "extra_002", *CASES[2:5]]
        assert not set(pool) & set(FOLD.val)

    def test_without_a_split_it_is_the_images_without_label(self, make_dataset):
        assert sorted(self.pool_of(make_dataset())) == ["extra_000", "extra_001", "extra_002"]

    def test_loader_draws_from_the_pool_alone(self, make_dataset):
        dataset = make_dataset()
        write_split(dataset)
        trainer = make_trainer(dataset, nnUNetTrainerMeanTeacher, split="n2")
        trainer.on_train_start()
        seen = {k for _ in range(30) for k in next(trainer.dataloader_train)["unlabeled"]["keys"]}
        assert seen == {"extra_000", "extra_001", "extra_002", *CASES[2:5]}

    def test_a_labelled_case_among_the_unlabelled_is_refused(self, make_dataset):
        dataset = make_dataset()
        folder = dataset / "nnUNetPlans_3d_fullres__unlabeled"
        for suffix in (".b2nd", "_seg.b2nd", ".pkl"):
            shutil.copy(folder / f"extra_000{suffix}", folder / f"tiny_005{suffix}")
        with pytest.raises(SemiSupervisedError, match="also among the labelled cases(.|\n)*tiny_005"):
            self.pool_of(dataset)

    def test_missing_preprocessing_names_the_cases_and_the_command(self, make_dataset):
        with pytest.raises(SemiSupervisedError) as error:
            self.pool_of(make_dataset(preprocess=False))
        message = str(error.value)
        assert "nnunet_ssl preprocess -d 901 -c 3d_fullres -p nnUNetPlans" in message
        assert all(case in message for case in ("extra_000", "extra_001", "extra_002"))

    def test_no_unlabelled_image_at_all_is_an_error_with_the_remedy(self, make_dataset):
        with pytest.raises(SemiSupervisedError, match=r"nothing unlabelled(.|\n)*imagesUn(.|\n)*nnunet_ssl splits"):
            self.pool_of(make_dataset(unlabeled=0))

    def test_missing_labelled_preprocessing_names_the_command(self, make_dataset):
        dataset = make_dataset(preprocess=False)
        shutil.rmtree(dataset / "nnUNetPlans_3d_fullres")
        with pytest.raises(SemiSupervisedError, match="nnUNetv2_preprocess -d 901 -c 3d_fullres"):
            make_trainer(dataset, nnUNetTrainerSupervised).initialize()

    def test_split_with_an_unknown_case_is_refused(self, make_dataset):
        dataset = make_dataset(preprocess=False)
        write_split(dataset, Fold(["tiny_000", "nobody_7"], CASES[2:5], CASES[5:]))
        trainer = make_trainer(dataset, nnUNetTrainerSupervised, split="n2")
        with pytest.raises(SemiSupervisedError, match="nobody_7"):
            trainer.do_split()

    def test_fold_all_with_a_split_is_refused(self, make_dataset):
        dataset = make_dataset(preprocess=False)
        write_split(dataset)
        with pytest.raises(SemiSupervisedError, match='Fold "all"'):
            make_trainer(dataset, nnUNetTrainerSupervised, split="n2", fold="all").do_split()

    def test_fold_all_without_a_split_trains(self, make_dataset):
        trainer = make_trainer(make_dataset(), nnUNetTrainerMeanTeacher, fold="all")
        trainer.run_training()
        assert [sorted(cases) for cases in trainer.do_split()] == [CASES, CASES]
        assert Path(trainer.output_folder, "checkpoint_final.pth").is_file()


def test_wrong_settings_are_refused_before_anything_is_written(make_dataset):
    dataset = make_dataset(preprocess=False)
    with pytest.raises(NotImplementedError):
        make_trainer(dataset, nnUNetTrainerMeanTeacher, "3d_cascade_fullres")
    with pytest.raises(SemiSupervisedError, match='unknown key "weight"(.|\n)*allowed: pull_looks,'):
        make_trainer(dataset, nnUNetTrainerMeanTeacher, hyperparameters={"weight": 1})
    with pytest.raises(SemiSupervisedError, match="ema_decay = 1.5 must lie between 0.0 and 1.0"):
        make_trainer(dataset, nnUNetTrainerMeanTeacher, hyperparameters={"ema_decay": 1.5})
    assert not list((dataset.parents[1] / "nnUNet_results").iterdir())


def test_unlabeled_batch_size(make_dataset):
    trainer = make_trainer(make_dataset(), nnUNetTrainerMeanTeacher, hyperparameters={"unlabeled_batch_size": 3})
    trainer.on_train_start()
    labeled, unlabeled = trainer.split_batch(next(trainer.dataloader_train))
    assert (len(labeled.image), len(unlabeled.weak), len(unlabeled.valid)) == (2, 3, 3)
    assert unlabeled.valid.dtype == torch.bool and unlabeled.valid.shape[1] == 1


@pytest.mark.usefixtures("no_figures")
def test_progress_runs_from_zero_to_one(make_dataset):
    seen = []

    class Recorder(nnUNetTrainerMeanTeacher):
        def losses(self, labeled, unlabeled):
            seen.append(self.progress)
            return super().losses(labeled, unlabeled)

    trainer = make_trainer(make_dataset(), Recorder)
    trainer.run_training()
    np.testing.assert_allclose(seen, np.arange(6) / 6)
    assert trainer.iteration == 2 * SHORT["num_iterations_per_epoch"] + 3  # after the last epoch's increment


@pytest.mark.usefixtures("no_figures")
class TestWarnings:
    def test_a_term_that_stays_zero_is_reported_once(self, make_dataset):
        class Silent(nnUNetTrainerMeanTeacher):
            def losses(self, labeled, unlabeled):
                terms = super().losses(labeled, unlabeled)
                return {**terms, "consistency": terms["consistency"] * 0}

        trainer = make_trainer(make_dataset(), Silent)
        trainer.run_training()
        assert log_of(trainer).count("The loss term consistency was exactly zero") == 1

    def test_collapse_to_background_is_reported_once(self, make_dataset):
        class Collapsing(nnUNetTrainerMeanTeacher):
            def observe_pseudo_labels(self, student, teacher, valid, pasted=None):
                background = torch.zeros_like(teacher)
                background[:, 0] = 10
                super().observe_pseudo_labels(student, background, valid, pasted)

        trainer = make_trainer(make_dataset(), Collapsing, training={**SHORT, "num_epochs": 3})
        trainer.run_training()
        assert log_of(trainer).count("collapsed to background") == 1

    def test_a_healthy_run_is_not_warned_about(self, make_dataset):
        trainer = make_trainer(make_dataset(), nnUNetTrainerMeanTeacher, training={**SHORT, "num_epochs": 1})
        trainer.run_training()
        assert "WARNING" not in log_of(trainer)


def test_logged_names_reach_nnunets_logger_and_the_csv(make_dataset):
    trainer = make_trainer(make_dataset(), nnUNetTrainerMeanTeacher)
    trainer.run_training()
    logging = trainer.logger.local_logger.my_fantastic_logging
    expected = {"loss_supervised", "loss_consistency", "weight_consistency", "coverage", "agreement", "foreground"}
    assert {f"ssl/{name}" for name in expected} <= set(logging)
    assert all(len(values) == 2 for values in logging.values())
    table = pd.read_csv(Path(trainer.output_folder, "semi_supervised.csv"))
    assert expected <= set(table) and list(table["epoch"]) == [0, 1]
    total = table["loss_supervised"] + table["loss_consistency"]
    np.testing.assert_allclose(total, trainer.logger.get_value("train_losses", None), rtol=1e-5)
    assert Path(trainer.output_folder, "progress_semi_supervised.png").stat().st_size > 0


def test_gradients_are_clipped_per_network(make_dataset):
    class TwoNetworks(nnUNetTrainerMeanTeacher):
        def build_auxiliary(self):
            second = self.network_copy().requires_grad_(True)
            return {**super().build_auxiliary(), "second": second}

        def losses(self, labeled, unlabeled):
            terms = super().losses(labeled, unlabeled)
            terms["supervised"] = terms["supervised"] * 1e4
            terms["second"] = self.forward(self.auxiliary["second"], unlabeled.weak).square().mean() * 1e4
            return terms

    trainer = make_trainer(make_dataset(), TwoNetworks)
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    trained = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert {id(p) for p in trainer.auxiliary["second"].parameters() if p.requires_grad} <= trained
    assert not {id(p) for p in trainer.auxiliary["teacher"].parameters()} & trained
    trainer.train_step(next(trainer.dataloader_train))
    for network in (trainer.network, trainer.auxiliary["second"]):
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients]))
        assert norm.item() == pytest.approx(12.0, rel=1e-3)


@pytest.mark.parametrize("kind", [nnUNetTrainerSupervised, nnUNetTrainerMeanTeacher])
def test_a_network_of_two_stages_learns(make_dataset, kind):
    """Its one output of deep supervision is the one to which nnU-Net gives no weight."""
    dataset = make_dataset()
    network = SmallNetwork("3d_fullres", features=[4, 8], patch_size=[16, 16, 16])
    write_plans_copy(901, name="two", training=SHORT, network=network)
    trainer = make_trainer(dataset, kind, plans_name="two", training=SHORT)
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    before = weights(trainer.network)
    loss = trainer.train_step(next(trainer.dataloader_train))["loss"]
    assert np.isfinite(loss) and not same_weights(before, weights(trainer.network))
    assert all(weight.isfinite().all() for weight in weights(trainer.network))


def test_images_preprocessed_with_other_settings_are_refused(make_dataset):
    dataset = make_dataset()
    plans = load_json(str(dataset / "nnUNetPlans.json"))
    plans["configurations"]["3d_fullres"]["use_mask_for_norm"] = [True]
    save_json(plans, str(dataset / "nnUNetPlans.json"), sort_keys=False)
    trainer = make_trainer(dataset, nnUNetTrainerMeanTeacher)
    with pytest.raises(SemiSupervisedError, match="other settings(.|\n)*extra_000(.|\n)*nnunet_ssl preprocess -d 901"):
        trainer.on_train_start()


def test_hidden_files_beside_the_images_do_no_harm(make_dataset):
    dataset = make_dataset()
    (dataset.parents[1] / "nnUNet_raw" / DATASET / "imagesUn" / "._extra_000_0000.nii.gz").write_bytes(b"macOS")
    trainer = make_trainer(dataset, nnUNetTrainerMeanTeacher)
    trainer.streams.check_cases()
    assert sorted(trainer.streams.cases()) == ["extra_000", "extra_001", "extra_002"]


@pytest.mark.parametrize("regions", [False, True])
def test_ignored_voxels_do_not_count_as_labelled_foreground(make_dataset, regions):
    labels = {"background": 0, "whole": (1, 2), "box": 2} if regions else {"background": 0, "ball": 1, "box": 2}
    recipe = {"labels": {**labels, "ignore": 3}, "regions_class_order": (1, 2) if regions else None}
    trainer = make_trainer(make_dataset(**recipe), nnUNetTrainerMeanTeacher)
    trainer.initialize()
    label = torch.tensor([0.0, 1.0, 3.0, 3.0]).view(1, 1, 4)  # half of what is annotated is foreground
    manager = trainer.label_manager
    classes = [np.atleast_1d(c) for c in (manager.foreground_regions if regions else [0, *manager.foreground_labels])]
    channels = torch.cat([torch.isin(label, torch.as_tensor(values)) for values in classes], 1)
    target = torch.cat([channels, label == 3], 1).float() if regions else label
    trainer.monitor.labels(LabeledBatch(label, target))
    assert trainer.monitor.epoch_means()["labeled_foreground"] == pytest.approx(0.5)
    channels[..., 2:] = True  # predicted foreground where nobody annotated
    logits = torch.where(channels, 9.0, -9.0)
    trainer.monitor.withheld = label.long()
    trainer.observe_pseudo_labels(logits, logits, torch.ones(1, 1, 4, dtype=torch.bool))
    assert trainer.monitor.epoch_means()["true_dice"] == pytest.approx(1.0)


def test_noise_and_strong_view_keep_a_masked_background_at_zero(make_dataset):
    trainer = make_trainer(make_dataset(mask_normalization=True), nnUNetTrainerMeanTeacher)
    trainer.on_train_start()
    assert trainer.streams.masked_channels == [0]
    weak = torch.randn(8, 1, 12, 12, 12)
    weak[:, :, :6] = 0
    for changed in (trainer.streams.strong_view(weak), trainer.with_noise(weak, 0.1, 0.2)):
        assert not changed[:, :, :6].any()
        assert not torch.equal(changed[:, :, 6:], weak[:, :, 6:])


def test_stock_loader_classes_and_memory_mapping_are_used(make_dataset):
    dataset = make_dataset()
    trainer = make_trainer(dataset, nnUNetTrainerMeanTeacher)
    trainer.on_train_start()
    image = trainer.dataloader_train.data_loader.unlabeled._data.load_case("extra_000")[0]
    stock = nnUNetDatasetBlosc2(str(dataset / "nnUNetPlans_3d_fullres__unlabeled")).load_case("extra_000")[0]
    assert type(image) is type(stock)
    np.testing.assert_array_equal(image[:], stock[:])


def test_a_splits_file_edited_by_hand_is_refused(make_dataset):
    dataset = make_dataset(preprocess=False)
    write_split(dataset)
    content = (dataset / "splits_ssl.json").read_text().replace("tiny_004", "tiny_005")
    (dataset / "splits_ssl.json").write_text(content)
    with pytest.raises(SemiSupervisedError, match="edited by hand"):
        make_trainer(dataset, nnUNetTrainerSupervised, split="n2").do_split()


def test_bfloat16_on_a_cpu_where_the_settings_ask_for_it(ready_dataset):
    """The networks alone: weights and terms stay in float32, and presets in float32 stay as published."""
    dataset, found = ready_dataset(), {}
    for wanted in (None, True):
        options = {"split": "n2", "training": {**SHORT, "cpu_bfloat16": wanted}}
        trainer = make_trainer(dataset, nnUNetTrainerMeanTeacher, "2d", **options)
        (found[wanted],) = steps(trainer, 1)
        labeled, unlabeled = trainer.split_batch(next(trainer.dataloader_train))
        expected = torch.bfloat16 if wanted else torch.float32
        assert finest(trainer.forward(trainer.network, labeled.image)).dtype == expected
        assert trainer.teacher(unlabeled.weak)[0].dtype == expected
        assert {term.dtype for term in trainer.losses(labeled, unlabeled).values()} == {torch.float32}
        assert {p.dtype for p in trainer.network.parameters()} == {torch.float32}
    assert found[True] != found[None]
    assert found[True]["total"] == pytest.approx(found[None]["total"], rel=0.02)
    preset = make_trainer(dataset, nnUNetTrainerUniMatch_paper, "2d", **options)
    assert isinstance(preset.mixed_precision(), nullcontext)


@pytest.mark.parametrize(("processor", "warned"), [("AVX2", True), ("AVX512", False)])
def test_bfloat16_on_a_processor_without_it_is_warned_of(ready_dataset, monkeypatch, processor, warned):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: processor)
    trainer = make_trainer(ready_dataset(), nnUNetTrainerMeanTeacher, "2d", training={**SHORT, "cpu_bfloat16": True})
    trainer.initialize()
    trainer.on_train_start()
    log = Path(trainer.log_file).read_text()
    assert ("this processor has no instructions for bfloat16" in log) == warned
