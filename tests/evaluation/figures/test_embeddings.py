"""Embeddings of patches of a checkpoint of PLGCL, and their t-SNE."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_ssl.cli import main
from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.evaluation.figures import embedding_figure
from nnunet_ssl.evaluation.figures.embedding_figure import draw, with_tsne
from nnunet_ssl.evaluation.figures.embeddings import PatchEmbedder, as_nnunet
from nnunet_ssl.evaluation.model_folder import Model
from nnunet_ssl.trainers.mean_teacher import nnUNetTrainerMeanTeacher
from nnunet_ssl.trainers.plgcl.trainer import nnUNetTrainerPLGCL
from tests.evaluation.figures.models import saved_model

MODEL = Model("901", "nnUNetPlans", "nnUNetTrainerPLGCL", "3d_fullres")
WORDS = ["figure", "embeddings", "-d", "901", "-p", "nnUNetPlans", "-c", "3d_fullres", "-device", "cpu"]
FEW = {"embedding_size": 16, "memory_size": 64, "min_keys": 2}


def embedder(cases: tuple[str, ...] = ("tiny_004", "tiny_005"), pseudo: bool = False) -> PatchEmbedder:
    return PatchEmbedder(MODEL, 0, "checkpoint_final.pth", cases, pseudo, "cpu")


@pytest.mark.usefixtures("no_figures")
def test_vectors_are_those_of_the_trainer(make_dataset, tmp_path, monkeypatch):
    """Also where the teacher predicts: E_S and H_S are the trained ones."""
    trainer = saved_model(make_dataset(preprocess=False), nnUNetTrainerPLGCL, monkeypatch, tmp_path, all_is=2,
                          predict_with="teacher", **FEW)  # fmt: skip
    with torch.no_grad():
        for parameter in trainer.auxiliary["teacher"].parameters():
            parameter.mul_(3)
    trainer.save_checkpoint(str(Path(trainer.output_folder, "checkpoint_final.pth")))
    made, seen = embedder(), []
    sample = made.sampler.sample
    made.sampler.sample = lambda *given: seen.append((given, sample(*given))) or seen[-1][1]
    table = made.embed(2, seed=3)
    assert list(table.columns) == ["batch", "class", *(f"e{i}" for i in range(16))]
    assert set(table["batch"]) == {0, 1} and set(table["class"]) == {"background", "ball", "box"}
    for index, ((images, confidence, valid), (patches, _)) in enumerate(seen):
        assert images.shape == (made.batch, 1, 16, 16, 16) and valid.float().mean() > 0.5
        assert set(confidence.unique().tolist()) == {0.0, 1.0}  # true labels
        with torch.no_grad():
            expected = trainer.embed(trainer.network, trainer.auxiliary["head"], patches)[patches.valid]
        found = table[table["batch"] == index]
        np.testing.assert_allclose(found.filter(regex="^e").to_numpy(), expected.numpy(), atol=1e-5)
        names = np.array(["background", "ball", "box"])[patches.classes[patches.valid]]
        assert found["class"].tolist() == names.tolist()
    again = made.embed(2, seed=3)
    pd.testing.assert_frame_equal(table, again)


@pytest.mark.usefixtures("no_figures")
def test_classes_by_the_network_itself(make_dataset, tmp_path, monkeypatch):
    saved_model(make_dataset(preprocess=False), nnUNetTrainerPLGCL, monkeypatch, tmp_path, **FEW)
    made, seen = embedder(pseudo=True), []
    sample = made.sampler.sample
    made.sampler.sample = lambda *given: seen.append(given) or sample(*given)
    made.embed(1)
    ((images, confidence, _),) = seen
    with torch.no_grad():
        torch.testing.assert_close(confidence, made.network(images).softmax(1))


@pytest.mark.usefixtures("no_figures")
def test_the_command_writes_a_figure_and_its_table(make_dataset, tmp_path, monkeypatch, capsys):
    base = make_dataset(preprocess=False)
    (base / "splits_final.json").write_text('[{"train": ["tiny_000"], "val": ["tiny_004", "tiny_005"]}]')
    trainer = saved_model(base, nnUNetTrainerPLGCL, monkeypatch, tmp_path, **FEW)
    trainer.save_checkpoint(str(Path(trainer.output_folder, "checkpoint_epoch_1.pth")))
    chosen, sheet = ["-tr", "nnUNetTrainerPLGCL", "--batches", "1", "-o"], tmp_path / "new" / "figure.csv"
    both = ["-chk", "checkpoint_epoch_1.pth", "checkpoint_final.pth"]
    assert main([*WORDS, *chosen, str(sheet.with_suffix(".png")), *both]) == 0
    assert f"Embeddings of {len(pd.read_csv(sheet))} patches" in capsys.readouterr().out
    assert sheet.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    table = pd.read_csv(sheet)
    assert list(table.columns)[:5] == ["checkpoint", "batch", "class", "tsne_1", "tsne_2"]
    assert list(table["checkpoint"].unique()) == ["checkpoint_epoch_1", "checkpoint_final"]
    np.testing.assert_allclose(np.linalg.norm(table.filter(regex="^e"), axis=1), 1, atol=1e-4)
    assert main([*WORDS, *chosen, str(sheet), "--cases", "tiny_004", "case_9"]) == 1
    assert "nnUNetPlans_3d_fullres:\n  - case_9" in capsys.readouterr().err
    saved_model(base, nnUNetTrainerMeanTeacher, monkeypatch, tmp_path)
    assert main([*WORDS, "-tr", "nnUNetTrainerMeanTeacher", "-o", str(sheet)]) == 1
    assert "nnUNetTrainerMeanTeacher embeds no patches.\nGive a model of nnUNetTrainerPLGCL" in capsys.readouterr().err


def clusters() -> pd.DataFrame:
    """Two classes of 20 vectors, each around one axis."""
    vectors = np.random.default_rng(0).normal(0, 0.05, (40, 8))
    vectors[:20, 0] += 1
    vectors[20:, 1] += 1
    table = pd.DataFrame(vectors).add_prefix("e")
    table.insert(0, "class", ["a"] * 20 + ["b"] * 20)
    table.insert(0, "batch", 0)
    return table


def test_clusters_stay_apart_and_have_their_colours(monkeypatch):
    table = with_tsne(clusters())
    places = table[["tsne_1", "tsne_2"]].to_numpy()
    centres = places[:20].mean(0), places[20:].mean(0)
    within = max(np.linalg.norm(places[:20] - centres[0], axis=1).max(), 1e-9)
    assert np.linalg.norm(centres[0] - centres[1]) > within
    figures = []
    monkeypatch.setattr(embedding_figure, "to_png", lambda figure: figures.append(figure) or b"")
    draw({"one": table, "two": table[table["class"] == "b"]}, ["a", "b", "c"])
    (figure,) = figures
    assert [a.get_title() for a in figure.axes] == ["one, 40 patches", "two, 20 patches"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]
    first, second = (axis.collections for axis in figure.axes)
    assert len(first) == 2 and len(second) == 1
    assert (first[1].get_facecolor() == second[0].get_facecolor()).all()  # class b
    assert not (first[0].get_facecolor() == first[1].get_facecolor()).all()
    with pytest.raises(SemiSupervisedError, match="3 patches are too few for t-SNE"):
        with_tsne(clusters()[:3])


def test_regions_and_ignored_voxels_as_nnunet_gives_them():
    labels = torch.tensor([0, 1, 2, 3]).view(1, 1, 2, 2)
    plain = LabelManager({"background": 0, "a": 1, "b": 2}, None)
    assert as_nnunet(labels, plain) is labels
    regions = LabelManager({"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}, [1, 2])
    expected = [[[[0, 1], [1, 0]], [[0, 0], [1, 0]], [[0, 0], [0, 1]]]]
    assert as_nnunet(labels, regions).int().tolist() == expected
