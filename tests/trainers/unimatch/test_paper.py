"""What UniMatch's release and FixMatch train with."""

from __future__ import annotations

import pytest
import torch

from nnunet_ssl.trainers.unimatch.paper import JitterAndBlur
from tests.trainers.registered import make_registered


def test_half_the_loss_is_half_the_rate_and_twice_the_decay():
    found = []
    for scale, rate, decay in ((0.5, 0.01, 1e-2), (1.0, 0.005, 2e-2)):
        weight = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
        optimizer = torch.optim.SGD([weight], rate, momentum=0.9, weight_decay=decay)
        for step in range(4):
            optimizer.zero_grad()
            (scale * (weight.pow(3) + step * weight).sum()).backward()
            optimizer.step()
        found.append(weight.detach())
    torch.testing.assert_close(*found)


def test_labelled_patches_have_geometry_alone_and_strong_views_jitter_and_blur(ready_dataset):
    trainer = make_registered(ready_dataset(), "nnUNetTrainerUniMatch_paper", "2d", split="n2")
    trainer.on_train_start()
    labeled, unlabeled = trainer.split_batch(next(trainer.dataloader_train))
    with pytest.raises(RuntimeError, match="labeled.image was not computed"):
        _ = labeled.image
    assert labeled.weak.shape == unlabeled.strong.shape
    view = trainer.streams.strong_view
    assert isinstance(view, JitterAndBlur) and [p for p, _ in view.steps(None)] == [0.8, 0.8, 0.5]
    torch.manual_seed(0)
    changed = [not torch.equal(view(unlabeled.weak)[:1], unlabeled.weak[:1]) for _ in range(60)]
    assert sum(changed) / 60 > 0.9  # 1 - 0.2 * 0.2 * 0.5
