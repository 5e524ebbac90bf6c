"""SKCDF from end to end in process: kinds of data, switches, withheld labels, the checkpoint that predicts."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_ssl.architectures.skcdf import SKCDFNet
from nnunet_ssl.trainers import find_trainer
from nnunet_ssl.trainers.skcdf.trainer import nnUNetTrainerSKCDF
from nnunet_ssl.trainers.skcdf.transfer import TRANSFER_ORDERS
from tests.running import SHORT, make_trainer, same_weights

pytestmark = pytest.mark.usefixtures("no_figures")
ONE = {**SHORT, "num_epochs": 1, "num_iterations_per_epoch": 2}
TERMS = ("supervised", "unsupervised", "supervised_balanced", "unsupervised_balanced")


def table_of(trainer: nnUNetTrainerSKCDF) -> pd.DataFrame:
    return pd.read_csv(Path(trainer.output_folder, "semi_supervised.csv"))


SWITCHES = [
    {"decoupling": False},
    {"complementarity": False},
    {"balanced_heads": False},
    {"decoupling": False, "complementarity": False, "balanced_heads": False},
    {"decoupling": False, "balanced_heads": False},
    {"inference_decoder": "labeled"},
    {"auxiliary_dice_offset": False},
    {"self_heads": "merged", "attention_heads": 3, "context_samples": None, "attention_dropout": 0.0},
    {"token_map": "xavier", "channel_dropout": 0.5, "pseudo_label_dropout": True, "class_counts": "cases"},
    {"transfer_follows_rate": True},
    *({"transfer_order": order} for order in ("none", *TRANSFER_ORDERS)),
]


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_every_switch_trains_and_its_checkpoint_is_rebuilt_from_the_plans(make_dataset, switches):
    trainer = make_trainer(make_dataset(), nnUNetTrainerSKCDF, training=ONE, hyperparameters=switches)
    trainer.run_training()
    names = TERMS if switches.get("balanced_heads", True) else TERMS[:2]
    columns = {c.removeprefix("loss_") for c in table_of(trainer) if c.startswith("loss_")}
    assert columns == set(names) and all(table_of(trainer)[f"loss_{name}"].gt(0).all() for name in names)
    network, checkpoint = rebuilt(trainer)
    network.load_state_dict(checkpoint["network_weights"], strict=True)
    x = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        assert torch.equal(network.eval()(x), trainer.network.eval()(x)[0])
    wanted = "labeled" if switches.get("inference_decoder") == "labeled" or not network.decoupling else "unlabeled"
    assert network.decoder is network.decoders[wanted]


def rebuilt(trainer: nnUNetTrainerSKCDF) -> tuple[SKCDFNet, dict]:
    """The network as nnU-Net builds it for prediction, from the plans in the results folder alone."""
    plans = PlansManager(load_json(str(Path(trainer.output_folder_base, "plans.json"))))
    configuration = plans.get_configuration(trainer.configuration_name)
    torch.manual_seed(99)
    network = type(trainer).build_network_architecture(plans, configuration, 1, 3, enable_deep_supervision=False)
    return network, torch.load(Path(trainer.output_folder, "checkpoint_final.pth"), weights_only=False)


def test_the_settings_block_shapes_the_network(make_dataset):
    dataset = make_dataset(preprocess=False)
    settings = {"attention_heads": 3, "decoupling": False, "balanced_heads": False, "inference_decoder": "labeled"}
    plain, shaped = (make_trainer(dataset, nnUNetTrainerSKCDF, hyperparameters=values) for values in (None, settings))
    networks = []
    for trainer in (plain, shaped):
        manager = trainer.plans_manager
        networks.append(trainer.build_network_architecture(manager, manager.get_configuration("3d_fullres"), 1, 3))
    first, second = networks
    assert first.complementarity.local_attention.query.out_features == 2 * 8
    assert second.complementarity.local_attention.query.out_features == 3 * 8
    assert list(second.decoders) == ["labeled"] and second.labeled_decoder.auxiliary_head is None
    with pytest.raises(RuntimeError, match="Missing key|size mismatch"):
        second.load_state_dict(first.state_dict())
    # and the options that change no shape
    others = (
        {"complementarity": False},
        {
            "channel_dropout": 0.3,
            "attention_dropout": 0.2,
            "context_samples": 1,
            "token_map": "xavier",
            "self_heads": "merged",
        },
    )
    without, other = (
        trainer.build_network_architecture(trainer.plans_manager, trainer.configuration_manager, 1, 3)
        for trainer in (make_trainer(dataset, nnUNetTrainerSKCDF, hyperparameters=values) for values in others)
    )
    assert without.complementarity is None
    for network, values in ((first, (0.0, 0.1, 2, 2)), (other, (0.3, 0.2, 1, 1))):
        attention = network.complementarity
        for block in (attention.local_attention, attention.global_attention):
            found = (network.channel_dropout, block.dropout, attention.max_context, block.self_heads)
            assert found == values
            assert torch.equal(block.token_map.weight, torch.eye(len(block.token_map.weight))) == (network is first)
    # a length variant reads the settings of its trainer
    variant = find_trainer("nnUNetTrainerSKCDF_3epochs")
    assert variant.settings_of(shaped.plans_manager.plans).hyperparameters == shaped.hyperparameters


@pytest.mark.parametrize("variable, compiled", [(None, False), ("f", False), ("t", True)])
def test_compiles_only_when_told(make_dataset, monkeypatch, variable, compiled):
    trainer = make_trainer(make_dataset(preprocess=False), nnUNetTrainerSKCDF)
    trainer.device = torch.device("cuda")
    if variable is None:
        monkeypatch.delenv("nnUNet_compile", raising=False)
    else:
        monkeypatch.setenv("nnUNet_compile", variable)
    assert trainer._do_i_compile() == compiled


def test_nothing_is_counted_without_balanced_heads(make_dataset):
    dataset = make_dataset()
    trainer = make_trainer(dataset, nnUNetTrainerSKCDF, hyperparameters={"balanced_heads": False})
    trainer.run_training()
    assert "Voxels per class" not in Path(trainer.log_file).read_text()
    assert not list(dataset.glob("class_counts_ssl*"))


def test_pretrained_weights_of_another_number_of_classes(make_dataset, tmp_path):
    from nnunetv2.run.load_pretrained_weights import load_pretrained_weights

    dataset = make_dataset()
    trainer = make_trainer(dataset, nnUNetTrainerSKCDF)
    trainer.initialize()
    manager = trainer.plans_manager
    source = trainer.build_network_architecture(manager, trainer.configuration_manager, 1, 5)
    torch.save({"network_weights": source.state_dict()}, tmp_path / "five.pth")
    heads = [p.clone() for n, p in trainer.network.named_parameters() if ".seg_layers." in n]
    load_pretrained_weights(trainer.network, str(tmp_path / "five.pth"))
    assert torch.equal(trainer.network.encoder.stages[0][0].convs[0].conv.weight,
                       source.encoder.stages[0][0].convs[0].conv.weight)  # fmt: skip
    assert len(heads) > 4
    assert same_weights(heads, [p for n, p in trainer.network.named_parameters() if ".seg_layers." in n])
