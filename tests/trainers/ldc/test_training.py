"""Training runs with the Lagrange-duality losses from end to end in process, with either network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json, save_json
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunet_ssl import external
from nnunet_ssl.architectures.cmaformer import CMAformer
from nnunet_ssl.architectures.cmaformer_blocks import AtrousPyramid, ScalarGate
from nnunet_ssl.trainers.cmaformer.paper import nnUNetTrainerCMAformer_paper
from nnunet_ssl.trainers.cmaformer.supervised import nnUNetTrainerCMAformerSupervised
from nnunet_ssl.trainers.cmaformer.trainer import nnUNetTrainerCMAformer
from nnunet_ssl.trainers.ldc.trainer import nnUNetTrainerLDC
from tests.running import SHORT, make_trainer, same_weights, weights

pytestmark = pytest.mark.usefixtures("no_figures")
ONE = {**SHORT, "num_epochs": 1, "num_iterations_per_epoch": 2}
CMA = nnUNetTrainerCMAformer


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
