"""Training runs with the Lagrange-duality losses from end to end in process, with either network."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json, save_json
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_ssl import external
from nnunet_ssl.architectures.cmaformer import CMAformer
from nnunet_ssl.architectures.cmaformer_blocks import AtrousPyramid, ScalarGate
from nnunet_ssl.trainers.cmaformer.paper import nnUNetTrainerCMAformer_paper
from nnunet_ssl.trainers.cmaformer.supervised import nnUNetTrainerCMAformerSupervised
from nnunet_ssl.trainers.cmaformer.trainer import nnUNetTrainerCMAformer
from nnunet_ssl.trainers.ldc.trainer import nnUNetTrainerLDC
from nnunet_ssl.training.network import unwrap
from tests.running import SHORT, make_trainer, same_weights, weights
from tests.training.test_resume import Interrupted, interrupt_after, plain

pytestmark = pytest.mark.usefixtures("no_figures")
ONE = {**SHORT, "num_epochs": 1, "num_iterations_per_epoch": 2}
TERMS = ("constrained", "constrained_unlabeled", "squared_error", "distance", "contrast")
ANISOTROPIC = {"shape": (8, 22, 24), "spacing": (4.0, 1.0, 1.0), "patch_3d": (6, 20, 20)}
IGNORE = {"background": 0, "ball": 1, "box": 2, "ignore": 3}
REGIONS = {"labels": {"background": 0, "whole": (1, 2), "box": 2}, "regions_class_order": (1, 2)}
REGIONS_IGNORE = {**REGIONS, "labels": {**REGIONS["labels"], "ignore": 3}}
CMA = nnUNetTrainerCMAformer


class NoDeepSupervision(nnUNetTrainerLDC):
    def set_up(self) -> None:
        super().set_up()
        self.enable_deep_supervision = False


def table_of(trainer: Any) -> pd.DataFrame:
    return pd.read_csv(Path(trainer.output_folder, "semi_supervised.csv"))


@pytest.mark.parametrize(
    "trainer_class, recipe, configuration, options",
    [
        (nnUNetTrainerLDC, ANISOTROPIC, "3d_fullres", {"class_weights": "frequency", "slice_distance": 1}),
        (nnUNetTrainerLDC, {"labels": IGNORE}, "2d", {"confidence_threshold": 0.1}),
        (nnUNetTrainerLDC, REGIONS, "3d_fullres", {"value_margin": 1e-3, "penalty": 0.1}),
        (nnUNetTrainerLDC, REGIONS_IGNORE, "2d", {"dice_form": "voxel"}),
        (NoDeepSupervision, REGIONS_IGNORE, "3d_fullres", {"norm_budget": 0.0}),
        (CMA, ANISOTROPIC, "3d_fullres", {"gate": "qkv"}),
        (CMA, {"channels": 2, "mask_normalization": True}, "2d", {"gate": "sigmoid"}),
        (CMA, REGIONS, "3d_fullres", {"transformer_layers": 1}),
        (CMA, {"labels": IGNORE, "residual": True}, "3d_fullres", {"unlabeled_batch_size": 1}),
    ],
)
def test_every_kind_of_dataset_trains(make_dataset, trainer_class, recipe, configuration, options):
    trainer = make_trainer(make_dataset(**recipe), trainer_class, configuration, training=ONE, hyperparameters=options)
    trainer.initialize()
    before = weights(trainer.network)
    trainer.run_training()
    assert not same_weights(before, weights(trainer.network))
    table, log = table_of(trainer), Path(trainer.log_file).read_text()
    if options.get("dice_form") != "voxel":  # which has a negative minimum
        assert table[[f"loss_{name}" for name in TERMS[:4]]].gt(0).all(axis=None)
    assert table[[f"loss_{name}" for name in TERMS]].abs().lt(10).all(axis=None)
    assert table["violation_volume_labeled"].between(0, 1).all() and "Weights of the classes in the Dice" in log
    assert math.isfinite(trainer.logger.get_value("val_losses", -1))
    factors = {"2d": [1, 1], "3d_fullres": [1, 2, 2] if recipe is ANISOTROPIC else [2, 2, 2]}[configuration]
    distance = next(trainer.dataloader_train)["extra"]["distance"]
    patch = trainer.configuration_manager.patch_size
    assert list(distance.shape) == [2, 2, *(p // f for p, f in zip(patch, factors, strict=True))]
    assert distance.dtype == torch.float32 and distance.abs().max() == 1


@pytest.mark.parametrize("trainer_class, configuration, options", [
    (nnUNetTrainerLDC, "3d_fullres", {"norm_budget": 0.5}),  # so small that the norm's multiplier moves
    (CMA, "2d", {"predict_with": "teacher", "ema_decay": 0.7}),
])  # fmt: skip
def test_interrupted_equals_uninterrupted(make_dataset, trainer_class, configuration, options):
    dataset = make_dataset()

    def trainer(seed: int) -> Any:
        training = {**SHORT, "num_epochs": 3}
        return make_trainer(
            dataset, trainer_class, configuration, training=training, hyperparameters=options, seed=seed
        )

    straight = trainer(0)
    straight.run_training()
    first = trainer(0)
    interrupt_after(first, 1)
    with pytest.raises(Interrupted):
        first.run_training()
    file = Path(first.output_folder, "checkpoint_latest.pth")
    state = torch.load(file, weights_only=False)["nnunet_ssl"]
    assert plain(state) and state["auxiliary_state"]["multipliers"]["volume_labeled"].any()
    second = trainer(123)  # another seed: everything must come from the checkpoint
    second.load_checkpoint(str(file))
    second.run_training()
    for key in ("train_losses", "val_losses"):
        assert straight.logger.get_value(key, None) == second.logger.get_value(key, None)
    assert same_weights(weights(straight.network), weights(second.network))
    for name in straight.auxiliary:
        assert same_weights(weights(straight.auxiliary[name]), weights(second.auxiliary[name]))
    own, other = (t.dual.state() for t in (straight, second))
    assert own["multipliers"].keys() == other["multipliers"].keys()
    assert all(torch.equal(v, other["multipliers"][k]) for k, v in own["multipliers"].items())
    assert torch.equal(own["norm_budget"], other["norm_budget"])
    assert (own["multipliers"]["norm"] > 0) == ("norm_budget" in options)
    logs = [t.logger.local_logger.my_fantastic_logging for t in (straight, second)]
    keys = [k for k in logs[0] if k.startswith("ssl/")]
    assert len(keys) > 20 and all(logs[0][k] == logs[1][k] for k in keys)


def predicted(folder: str, image: np.ndarray) -> torch.Tensor:
    predictor = nnUNetPredictor(device=torch.device("cpu"), perform_everything_on_device=False, use_mirroring=False)
    predictor.initialize_from_trained_model_folder(folder, (0,))
    return predictor.predict_logits_from_preprocessed_data(torch.from_numpy(image)).clone()


@pytest.mark.parametrize("predict_with", ["student", "teacher"])
def test_checkpoint_of_the_plans_network_renamed_to_nnunet_predicts_the_same(make_dataset, monkeypatch, predict_with):
    monkeypatch.setenv("nnUNet_extTrainer", next(iter(external.__path__)))
    options = {"predict_with": predict_with, "ema_decay": 0.5}
    trainer = make_trainer(make_dataset(), nnUNetTrainerLDC, training=ONE, hyperparameters=options)
    trainer.run_training()
    image = np.random.default_rng(0).normal(size=(1, 20, 22, 18)).astype(np.float32)
    ours = predicted(trainer.output_folder_base, image)
    file = Path(trainer.output_folder, "checkpoint_final.pth")
    checkpoint = torch.load(file, weights_only=False)
    stock = make_stock(trainer)
    stock.load_state_dict(checkpoint["network_weights"], strict=True)
    wanted = trainer.auxiliary["teacher"] if predict_with == "teacher" else trainer.network
    assert same_weights(weights(stock), weights(unwrap(wanted)))
    checkpoint["trainer_name"] = "nnUNetTrainer"
    torch.save(checkpoint, file)
    monkeypatch.delenv("nnUNet_extTrainer")
    assert torch.equal(predicted(trainer.output_folder_base, image), ours) and ours.isfinite().all()


def make_stock(trainer: Any) -> torch.nn.Module:
    plans = PlansManager(load_json(str(Path(trainer.output_folder_base, "plans.json"))))
    return nnUNetTrainer.build_network_architecture(plans, plans.get_configuration("3d_fullres"), 1, 3, False)


def test_cmaformer_is_rebuilt_from_the_plans_and_predicts_alone(make_dataset, monkeypatch):
    monkeypatch.setenv("nnUNet_extTrainer", next(iter(external.__path__)))
    options = {"gate": "qkv", "transformer_layers": 1, "lite": False}
    trainer = make_trainer(make_dataset(), CMA, training=ONE, hyperparameters=options)
    trainer.run_training()
    state = torch.load(Path(trainer.output_folder, "checkpoint_final.pth"), weights_only=False)["network_weights"]
    assert not any("distance" in name or "projection" in name for name in state)
    predictor = nnUNetPredictor(device=torch.device("cpu"), perform_everything_on_device=False, use_mirroring=False)
    predictor.initialize_from_trained_model_folder(trainer.output_folder_base, (0,))
    network = predictor.network
    assert type(network) is CMAformer and len(network.bottleneck.encoder) == 1
    assert isinstance(network.decoder.output, AtrousPyramid)
    assert not any(isinstance(m, ScalarGate) for m in network.modules())
    network.load_state_dict(state, strict=True)
    image = np.random.default_rng(0).normal(size=(1, 20, 22, 18)).astype(np.float32)
    out = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(image))
    assert out.shape == (3, 20, 22, 18) and out.isfinite().all()
    x = torch.randn(2, 1, 16, 16, 16)
    with torch.no_grad():
        both, alone = trainer.network.eval()(x), network.eval()(x[:1])
    torch.testing.assert_close(both[:1], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
def test_network_alone_trains_with_nnunets_loss(make_dataset, configuration):
    trainer = make_trainer(make_dataset(unlabeled=0), nnUNetTrainerCMAformerSupervised, configuration, training=ONE)
    trainer.run_training()
    assert type(trainer.network) is CMAformer and not trainer.enable_deep_supervision
    assert type(trainer.loss).__name__ == "DC_and_CE_loss"
    assert math.isfinite(trainer.logger.get_value("train_losses", -1))
    assert not Path(trainer.output_folder, "semi_supervised.csv").exists()


def test_learning_rates_and_what_the_paper_prints(make_dataset):
    dataset = make_dataset(preprocess=False)

    def rate(trainer: type, training: dict | None = None, **options: Any) -> float:
        return make_trainer(dataset, trainer, training=training, hyperparameters=options).initial_lr

    assert rate(nnUNetTrainerLDC) == 0.01
    for trainer in (CMA, nnUNetTrainerCMAformerSupervised, nnUNetTrainerCMAformer_paper):
        assert rate(trainer) == 0.001
        assert rate(trainer, {"initial_lr": 0.5}) == 0.5
        assert rate(trainer, {"optimizer": "sgd"}) == rate(trainer, {"optimizer": "adamw"}) == 0.001
    assert rate(CMA, gate="sigmoid") == 0.01 and rate(nnUNetTrainerCMAformer_paper, gate="sigmoid") == 0.001
    paper = make_trainer(dataset, nnUNetTrainerCMAformer_paper, training=None)
    paper.initialize()
    hp = paper.hyperparameters
    assert (hp.dice_form, hp.gate, hp.lite, hp.position_bias) == ("voxel", "qkv", False, True)
    group = paper.optimizer.param_groups[0]
    assert (group["momentum"], group["nesterov"], group["weight_decay"]) == (0.99, True, 3e-5)
    assert type(paper.optimizer) is torch.optim.SGD and isinstance(paper.network.decoder.output, AtrousPyramid)


def test_pretrained_weights_reach_teacher_and_norm_budget(make_dataset):
    trainer = make_trainer(make_dataset(), nnUNetTrainerLDC)
    trainer.initialize()
    before = trainer.dual.budget
    for parameter in trainer.network.parameters():
        parameter.data *= 3
    trainer.on_train_start()
    torch.testing.assert_close(trainer.dual.budget, 9 * before)
    assert same_weights(weights(trainer.auxiliary["teacher"]), weights(trainer.network))


@pytest.mark.parametrize("trainer", [nnUNetTrainerLDC, CMA, nnUNetTrainerCMAformerSupervised])
def test_plans_without_the_levels_of_a_unet_are_refused_before_anything_is_written(make_dataset, trainer):
    dataset = make_dataset(preprocess=False)
    plans = load_json(str(dataset / "nnUNetPlans.json"))
    architecture = plans["configurations"]["3d_fullres"]["architecture"]
    architecture.update(network_class_name="elsewhere.Primus", arch_kwargs={"embed_dim": 8}, _kw_requires_import=[])
    save_json(plans, str(dataset / "nnUNetPlans.json"), sort_keys=False)
    with pytest.raises(NotImplementedError, match=r"does not support elsewhere.Primus"):
        make_trainer(dataset, trainer)
    results = dataset.parents[1] / "nnUNet_results"
    assert not results.exists() or not list(results.iterdir())


def test_compiled_network_gives_the_same_terms_and_gradients(make_dataset, monkeypatch):
    dataset, found, compile_it = make_dataset(), [], torch.compile
    monkeypatch.setattr(torch, "compile", lambda module: compile_it(module, backend="aot_eager"))
    for compiled in (False, True):
        trainer = make_trainer(dataset, NoDeepSupervision, "2d")
        monkeypatch.setattr(trainer, "_do_i_compile", lambda compiled=compiled: compiled)
        trainer.initialize()
        assert (unwrap(trainer.network) is not trainer.network) == compiled
        trainer.streams.strong_view = lambda images: images
        trainer.current_epoch = 1
        g = torch.Generator().manual_seed(0)
        images, others = (torch.randn(2, 1, 16, 16, generator=g) for _ in range(2))
        valid, distance = torch.ones(2, 1, 16, 16, dtype=torch.bool), torch.randn(2, 2, 16, 16, generator=g)
        batch = {
            "data": images,
            "target": torch.randint(0, 3, (2, 1, 16, 16), generator=g),
            "extra": {"valid": valid, "distance": distance},
            "unlabeled": {"data": others, "valid": valid},
        }
        torch.manual_seed(5)
        terms = trainer.losses(*trainer.split_batch(batch))
        torch.stack([*terms.values()]).sum().backward()
        modules = [trainer.network, *trainer.auxiliary.values()]
        gradients = [p.grad for m in modules for p in m.parameters() if p.requires_grad]
        found.append([*terms.values(), *gradients])
    for plain_value, compiled_value in zip(*found, strict=True):
        torch.testing.assert_close(plain_value, compiled_value, atol=1e-5, rtol=1e-4)
