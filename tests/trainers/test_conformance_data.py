"""Every registered trainer: what it trains on, what it refuses, who learns from what, and what it must not see."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from batchgenerators.utilities.file_and_folder_operations import load_pickle, write_pickle

from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.training.base import nnUNetTrainerSemiSupervised
from tests.running import FOLD, SHORT, same_weights, weights
from tests.tiny import DATASET
from tests.trainers import inside
from tests.trainers.registered import EARLY, KINDS, NAMES, OPTIONS, REFUSED, make_registered
from tests.trainers.routing import ROUTES
from tests.trainers.stepping import steps

pytestmark = pytest.mark.usefixtures("no_figures")
TWO = {**SHORT, "num_epochs": 2, "num_iterations_per_epoch": 1, "save_every": 50}
TRAINING = {"num_epochs": 3, "num_iterations_per_epoch": 1, "seed": 1}


def test_every_trainer_declares_its_routes():
    assert set(ROUTES) == set(NAMES), "a new trainer joins the table in routing.py"


# ---- what it trains on


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_trains_on_or_refuses_every_kind_of_dataset(ready_dataset, name, kind):
    recipe, configuration = KINDS[kind]
    dataset = ready_dataset(**recipe)
    options = {"split": "n2", "training": TWO, "hyperparameters": OPTIONS.get((name, kind), {})}
    if kind in REFUSED.get(name, {}):
        with pytest.raises(NotImplementedError, match=f"{name} {REFUSED[name][kind]}"):
            make_registered(dataset, name, configuration, **options)
        return
    trainer = make_registered(dataset, name, configuration, **options)
    if kind == "no deep supervision":
        trainer.enable_deep_supervision = False
    trainer.initialize()
    before = weights(trainer.network)
    trainer.run_training()
    assert not same_weights(before, weights(trainer.network))
    logged = [trainer.logger.get_value(key, -1) for key in ("train_losses", "val_losses")]
    assert all(math.isfinite(value) for value in logged)
    warnings = [line for line in Path(trainer.log_file).read_text().splitlines() if "WARNING" in line]
    early = [words for words, trainers in EARLY.items() if name.removeprefix("nnUNetTrainer") in trainers]
    assert [line for line in warnings if not any(words in line for words in early)] == []
    table = Path(trainer.output_folder, "semi_supervised.csv")
    assert table.exists() == isinstance(trainer, nnUNetTrainerSemiSupervised)
    if table.exists():
        losses = pd.read_csv(table).filter(regex="^loss_")
        last = losses.drop(columns=[f"loss_{term}" for term in ROUTES[name].silent]).iloc[-1]
        assert last[~(last.gt(0) & last.lt(20))].empty


@pytest.mark.parametrize("name", NAMES)
def test_cascade_stages_and_unknown_settings_are_refused_before_anything_is_written(ready_dataset, tmp_path, name):
    dataset = ready_dataset()
    if ROUTES[name].terms.keys() - {"supervised"}:
        with pytest.raises(NotImplementedError, match=f"{name} does not support cascade stages"):
            make_registered(dataset, name, "3d_cascade_fullres")
    with pytest.raises(SemiSupervisedError, match=f'unknown key "omega" in "hyperparameters" of {name}'):
        make_registered(dataset, name, "2d", hyperparameters={"omega": 1})
    assert not list(tmp_path.rglob("results/*"))


# ---- who learns from what


def at_work(dataset: Path, name: str, **options: Any) -> Any:
    """In its third and last epoch, past every warm-up, without chance in its views."""
    trainer = make_registered(dataset, name, "2d", split="n2", training=TRAINING, **options)
    list(steps(trainer, 3))
    inside.without_chance(trainer)
    return trainer


def reached(term: torch.Tensor, tensors: dict[str, torch.Tensor]) -> set[str]:
    gradients = torch.autograd.grad(term, [*tensors.values()], retain_graph=True, allow_unused=True)
    return {name for name, g in zip(tensors, gradients, strict=True) if g is not None and g.any()}


@pytest.mark.parametrize("name", NAMES)
def test_each_term_teaches_its_own_networks_from_its_own_stream(ready_dataset, name):
    routes, trainer = ROUTES[name], at_work(ready_dataset(), name)
    inside.disturb_copies(trainer)
    known = inside.parameters(trainer)
    trained = {key: p for key, p in known.items() if p.requires_grad}
    frozen = {key.split(".")[0] for key in known} - {key.split(".")[0] for key in trained}
    assert frozen == {n for n in routes.frozen if n != "memory"}
    batch = next(trainer.dataloader_train)
    streams = {
        f"{s} {i}": x.requires_grad_() for s, views in inside.images_of(batch).items() for i, x in enumerate(views)
    }
    terms = inside.terms_of(trainer, batch)
    assert set(terms) - set(routes.silent) <= set(routes.terms)
    for term, loss in terms.items():
        assert loss.dtype == torch.float32 and loss.ndim == 0
        if term in routes.silent:
            assert not loss.requires_grad
            continue
        found = reached(loss, trained | streams)
        parts = {part for part, begin in routes.parts.items() if any(key.startswith(begin) for key in found)}
        expected = set(routes.terms[term].split())
        assert parts == expected & set(routes.parts), term
        if routes.streams:
            taught_by = {key.split()[0] for key in found & set(streams)}
            assert taught_by == expected & {"labeled", "unlabeled"}, term


@pytest.mark.parametrize("name", NAMES)
def test_a_step_reaches_every_weight_that_is_trained(ready_dataset, name):
    """DDP refuses what a step leaves without gradient."""
    trainer = at_work(ready_dataset(), name)
    trainer.train_step(next(trainer.dataloader_train))
    trained = {id(p) for group in trainer.optimizer.param_groups for p in group["params"] if p.requires_grad}
    known = inside.parameters(trainer)
    assert trained == {id(p) for p in known.values() if p.requires_grad}
    # nnU-Net gives the coarsest output weight 0, and 1e-6 with several processes
    coarsest = {
        id(p)
        for network in inside.networks(trainer).values()
        for module in network.modules()
        if trainer.enable_deep_supervision and isinstance(getattr(module, "seg_layers", None), torch.nn.ModuleList)
        for p in module.seg_layers[0].parameters()
    }
    unused = [k for k, p in known.items() if p.requires_grad and p.grad is None and id(p) not in coarsest]
    assert unused == []
    assert all(p.grad is None or p.grad.isfinite().all() for p in known.values())


# ---- what it must not see


@pytest.fixture(scope="module")
def garbled_store(ready_store, tmp_path_factory) -> Path:
    """The shared dataset with garbage wherever a withheld label stands."""
    from tests.tiny import Tiny

    root = tmp_path_factory.mktemp("garbled") / "data"
    shutil.copytree(ready_store(Tiny()), root)
    dataset = root / "nnUNet_preprocessed" / DATASET
    for counted in dataset.glob("class_counts_ssl*"):
        counted.unlink()  # counted again
    for case in FOLD.unlabeled:
        for configuration in ("3d_fullres", "2d"):
            folder = dataset / f"nnUNetPlans_{configuration}"
            (folder / f"{case}_seg.b2nd").write_bytes(b"garbage")
            properties = load_pickle(str(folder / f"{case}.pkl"))
            properties["class_locations"] = {1: np.full((5, 4), 10**6), 99: "nonsense"}
            write_pickle(properties, str(folder / f"{case}.pkl"))
        (dataset / "gt_segmentations" / f"{case}.nii.gz").write_bytes(b"garbage")
    return root


@pytest.mark.parametrize("name", NAMES)
def test_garbage_in_place_of_withheld_labels_changes_nothing(ready_dataset, garbled_store, monkeypatch, name):
    configuration = "3d_fullres" if NAMES.index(name) % 2 else "2d"
    found = []
    for garbled in (False, True):
        dataset = ready_dataset()
        if garbled:
            dataset = garbled_store / "nnUNet_preprocessed" / DATASET
            monkeypatch.setenv("nnUNet_preprocessed", str(dataset.parent))
        trainer = make_registered(dataset, name, configuration, split="n2", training=TRAINING)
        found.append((list(steps(trainer, 3)), weights(trainer.network)))
    assert found[0][0] == found[1][0] and same_weights(found[0][1], found[1][1])
