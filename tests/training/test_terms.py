from __future__ import annotations

import pytest
import torch

from nnunet_ssl.training.monitor import Monitor
from nnunet_ssl.training.terms import Terms


def test_terms_are_weighted_scalars_with_their_weights_on_record():
    terms = Terms(supervised=torch.tensor(2.0))
    terms.add("consistency", torch.tensor(3.0), 0.5)
    other = Terms()
    other.add("contrast", torch.tensor(4.0), 0.25)
    both = terms | other
    assert {name: value.item() for name, value in both.items()} == {"supervised": 2, "consistency": 1.5, "contrast": 1}
    assert both.weights == {"consistency": 0.5, "contrast": 0.25} and terms.weights == {"consistency": 0.5}
    terms |= other
    assert terms == both and terms.weights == both.weights
    assert (terms | {"plain": torch.tensor(1.0)}).weights == both.weights
    monitor = Monitor(torch.device("cpu"))
    monitor.terms(both)
    monitor.terms({"plain": torch.tensor(7.0)})
    assert monitor.epoch_means() == {
        "loss_consistency": 1.5, "loss_contrast": 1, "loss_plain": 7, "loss_supervised": 2,
        "weight_consistency": 0.5, "weight_contrast": 0.25,
    }  # fmt: skip


def test_a_name_is_given_once():
    with pytest.raises(ValueError, match='there is a term "a" already'):
        Terms(a=torch.tensor(1.0)).add("a", torch.tensor(1.0), 1.0)
