"""Every registered trainer: two gloo ranks agree and equal one process, and each network is one compiled graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from nnunet_ssl.training.network import unwrap
from tests.running import run_ranks, seed_everything
from tests.trainers import inside
from tests.trainers.registered import BEGINS_WITH_LABELED_ALONE, NAMES, make_registered
from tests.trainers.stepping import steps

TRAINING = {"num_epochs": 2, "num_iterations_per_epoch": 2, "seed": 1}
CASES: list[tuple[str, str, dict[str, Any]]] = [
    *((name, "2d", {}) for name in NAMES),
    ("nnUNetTrainerMeanTeacher", "3d_fullres", {}),
    ("nnUNetTrainerSKCDF", "3d_fullres", {"complementarity": False, "balanced_heads": False}),
    ("nnUNetTrainerSKCDF", "2d", {"decoupling": False, "context_samples": 1}),
    ("nnUNetTrainerDTC", "2d", {"shape_prior": "adversarial"}),
    ("nnUNetTrainerDualNetworks", "3d_fullres", {"dynamic_roles": True}),
    ("nnUNetTrainerDualNetworks", "2d", {"sequential": True}),
    ("nnUNetTrainerDKUXNet", "2d", {"warmup_fraction": 1.0, "recompute": True}),
    ("nnUNetTrainerLDC", "3d_fullres", {"norm_budget": 0.5, "value_margin": 0.1}),
    ("nnUNetTrainerCMAformer", "2d", {"gate": "qkv"}),
]
EQUAL: dict[str, tuple[str, ...]] = {
    "nnUNetTrainerSupervised": ("supervised",),
    "nnUNetTrainerPublishedSupervised": ("supervised",),
    "nnUNetTrainerUXNet": ("supervised",),
    "nnUNetTrainerCMAformerSupervised": ("supervised",),
    "nnUNetTrainerMeanTeacher": ("supervised", "consistency"),
    "nnUNetTrainerUAMT": ("supervised", "consistency"),
    "nnUNetTrainerURPC": ("supervised",),
    "nnUNetTrainerFixMatch": ("supervised",),
    "nnUNetTrainerFixMatch_paper": ("supervised", "strong"),
    "nnUNetTrainerUniMatch": ("supervised",),
    "nnUNetTrainerADMT": ("supervised",),
    "nnUNetTrainerCPS": ("supervised_first", "supervised_second"),
    "nnUNetTrainerCPS_released": ("supervised_first", "supervised_second", "cross_first", "cross_second"),
    "nnUNetTrainerDHC": ("cross_first", "cross_second"),
    "nnUNetTrainerMCNet": ("supervised", "consistency"),
    "nnUNetTrainerDTC": ("supervised", "distance", "consistency"),
    "nnUNetTrainerSSNet": ("supervised",),
    "nnUNetTrainerPLGCL": ("supervised", "consistency"),
    "nnUNetTrainerPLGCL_paper": ("supervised", "consistency"),
    "nnUNetTrainerDualNetworks": ("supervised_student", "supervised_teacher", "consistency", "uncertainty"),
    "nnUNetTrainerDualNetworks_released": ("consistency", "uncertainty"),
    "nnUNetTrainerDKUXNet": ("supervised", "query_distribution", "assignment"),
    "nnUNetTrainerDKUXNetSupervised": ("supervised", "query_distribution", "assignment"),
    "nnUNetTrainerLDC": ("squared_error", "distance"),
    "nnUNetTrainerCMAformer": ("squared_error", "distance"),
    "nnUNetTrainerCMAformer_paper": ("squared_error", "distance"),
}
"""Terms whose gradients are those of one process with both batches.

Not those whose Dice is summed over the batch of a rank, or for which each rank draws: SKCDF's, those with boxes, the
contrasts. PLGCL's contrast and LDC's multipliers have tests of their own.
"""
WEIGHTS = {
    "nnUNetTrainerMeanTeacher": {"noise_std": 0.0, "consistency_weight": 100.0},
    "nnUNetTrainerUAMT": {"noise_std": 0.0, "teacher_dropout": 0.0, "consistency_weight": 100.0},
    "nnUNetTrainerDHC": {"cross_weight": 1.0},
    "nnUNetTrainerDualNetworks_released": {"channel_dropout": 0.0},
    "nnUNetTrainerDKUXNet_paper": {"unlabeled_batch_size": 2},
}
"""No chance, and terms as large as the others."""


def make(dataset: Path, name: str, configuration: str, options: dict[str, Any]) -> Any:
    hyperparameters = WEIGHTS.get(name, {}) | options
    return make_registered(dataset, name, configuration, fold="all", training=TRAINING, hyperparameters=hyperparameters)


def build(dataset: Path, name: str, configuration: str, options: dict[str, Any]) -> Any:
    trainer = make(dataset, name, configuration, options)
    if name == "nnUNetTrainerDKUXNet_paper":  # one patch per step, which nnU-Net cannot share out
        trainer._set_batch_size_and_oversample = lambda: setattr(trainer, "batch_size", 1)
    trainer.initialize()
    inside.without_chance(trainer)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():  # the same weights everywhere
        for parameter in inside.parameters(trainer).values():
            if parameter.requires_grad and parameter.is_floating_point():
                parameter.add_(0.03 * torch.randn(parameter.shape, generator=generator))
    inside.disturb_copies(trainer)
    trainer.current_epoch = 1  # past every warm-up
    return trainer


def draw(dataset: Path, *case: Any) -> list[dict[str, Any]]:
    """One batch of its own loader for each rank, with different numbers of padded voxels."""
    trainer = make(dataset, *case)
    trainer.on_train_start()
    seed_everything(3)
    batches = [next(trainer.dataloader_train) for _ in range(2)]
    if len(batches[1]["data"]) > 1:
        inside.mark_padding(batches[1], (0, 1))
    return batches


def joined(first: Any, second: Any) -> Any:
    if isinstance(first, dict):
        return {key: joined(value, second[key]) for key, value in first.items()}
    if isinstance(first, list) and isinstance(first[0], torch.Tensor):
        return [joined(a, b) for a, b in zip(first, second, strict=True)]
    return torch.cat([first, second]) if isinstance(first, torch.Tensor) else [*first, *second]


def gradients(trainer: Any, batch: dict[str, Any], names: tuple[str, ...]) -> dict[str, torch.Tensor | None]:
    """Of the sum of these terms, before clipping; the others take part with weight 0, as DDP wants."""
    for module in inside.networks(trainer).values():
        module.zero_grad()
    terms = inside.terms_of(trainer, batch)
    torch.stack([loss if name in names else 0 * loss for name, loss in terms.items()]).sum().backward()
    known = inside.parameters(trainer)
    return {k: None if p.grad is None else p.grad.clone() for k, p in known.items() if p.requires_grad}


def worker(rank: int, dataset: Path) -> Any:
    nn.SyncBatchNorm.convert_sync_batchnorm = lambda module: module  # it refuses a CPU
    batches = torch.load(dataset.parents[2] / "batches.pt", weights_only=False)
    found = []
    for case, of_ranks in zip(CASES, batches, strict=True):
        trainer, batch = build(dataset, *case), of_ranks[rank]
        assert trainer.device.type == "cpu" and isinstance(trainer.network, DistributedDataParallel)
        own = gradients(trainer, batch, EQUAL[case[0]]) if case[0] in EQUAL else {}
        reached = []
        for _ in range(2):  # in the second, DDP refuses what got no gradient in the first
            trainer.train_step(batch)
            known = inside.parameters(trainer)
            reached.append({k: p.grad is not None for k, p in known.items() if p.requires_grad})
        state = {name: unwrap(module).state_dict() for name, module in inside.networks(trainer).items()}
        state["shared"] = inside.shared_state(trainer)
        found.append({"gradients": own, "steps": reached, "state": state})
    return found


@pytest.fixture(scope="module")
def ranks(ready_store, tmp_path_factory) -> tuple[Path, list[Any], list[Any]]:
    """Both ranks' results of all cases: two processes serve every trainer."""
    from tests.conftest import point_nnunet_at
    from tests.tiny import DATASET, Tiny

    root, out = ready_store(Tiny()), tmp_path_factory.mktemp("ranks")
    dataset = root / "nnUNet_preprocessed" / DATASET
    with pytest.MonkeyPatch.context() as patch:
        point_nnunet_at(root, patch)
        patch.setenv("nnUNet_results", str(out / "results"))
        batches = [draw(dataset, *case) for case in CASES]
        torch.save(batches, dataset.parents[2] / "batches.pt")
        return dataset, batches, run_ranks(worker, dataset, out)


@pytest.mark.slow
@pytest.mark.parametrize("index", range(len(CASES)), ids=[f"{name}-{c}-{len(o)}" for name, c, o in CASES])
def test_two_ranks_agree_and_equal_one_process(ranks, monkeypatch, tmp_path, index):
    dataset, batches, (first, second) = ranks
    case, mine, other = CASES[index], first[index], second[index]
    for module, state in mine["state"].items():
        for key, value in state.items():
            if "running_" in key:
                continue  # statistics of the rank's own batch, since batch norms cannot be synchronised on a CPU
            assert torch.equal(value, other["state"][module][key]), (module, key)
    for step in (*mine["steps"], *other["steps"]):
        assert all(step.values()), [key for key, reached in step.items() if not reached]
    if case[0] not in EQUAL:
        return
    monkeypatch.setenv("nnUNet_preprocessed", str(dataset.parent))
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    trainer = build(dataset, *case)
    expected = gradients(trainer, joined(*batches[index]), EQUAL[case[0]])
    assert any(g is not None and g.abs().max() > 1e-3 for g in expected.values())
    for key, gradient in mine["gradients"].items():
        if ".seg_layers.0." in key and trainer.enable_deep_supervision:
            continue  # nnU-Net gives the coarsest output weight 1e-6 under DDP and 0 without
        assert gradient is not None and torch.equal(gradient, other["gradients"][key]), key
        wanted = torch.zeros_like(gradient) if expected[key] is None else expected[key]
        torch.testing.assert_close(gradient, wanted, atol=1e-5, rtol=1e-3, msg=key)


# ---- torch.compile


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_each_network_is_one_compiled_graph(ready_dataset, monkeypatch, name):
    """``fullgraph`` forbids graph breaks; a compiled module is traced once for each batch size that it sees."""
    graphs: dict[str, int] = {}
    compile_it = torch.compile

    def counting(module: nn.Module) -> Any:
        label = f"{type(module).__name__}-{len(graphs)}"
        graphs[label] = 0

        def backend(graph: Any, inputs: Any) -> Any:
            graphs[label] += 1
            return graph.forward

        torch._dynamo.reset()
        return compile_it(module, backend=backend, fullgraph=True)

    inside.let_pytorch_draw_dropout(monkeypatch)  # a compiled network does
    found = []
    for compiled in (False, True):
        trainer = make_registered(ready_dataset(), name, "2d", split="n2", training=TRAINING)
        if compiled:
            monkeypatch.setattr(torch, "compile", counting)
            inside.compile_on_the_cpu(trainer)
        found.append(list(steps(trainer, 4)))
        assert (unwrap(trainer.network) is not trainer.network) == compiled
    for eager, compiled_terms in zip(*found, strict=True):
        assert compiled_terms == pytest.approx(eager, rel=1e-4, abs=1e-6)
    sizes = 1 + (name.removeprefix("nnUNetTrainer") in BEGINS_WITH_LABELED_ALONE)
    assert 1 <= next(iter(graphs.values())) <= sizes and max(graphs.values()) == sizes, graphs
