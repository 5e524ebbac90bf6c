from __future__ import annotations

from nnunet_ssl.evaluation.report.subjects import read_subjects
from tests.evaluation.report.synthetic import DATASET, write_subjects


def test_subjects_come_from_the_preprocessed_dataset(tmp_path, monkeypatch):
    subjects = {"case_0": "s", "case_1": "s", "case_2": "t", "case_3": "t"}
    write_subjects(tmp_path, subjects)
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    assert read_subjects(DATASET) == ({**subjects, "other": "other"}, "")


def test_no_preprocessed_dataset(tmp_path, monkeypatch):
    subjects, why = read_subjects(DATASET)
    assert subjects == {}
    assert why == "splits_ssl.json could not be read (The environment variable nnUNet_preprocessed is not set)"
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    subjects, why = read_subjects(DATASET)
    assert subjects == {} and why.startswith("splits_ssl.json could not be read")


def test_a_dataset_without_subjects(tmp_path, monkeypatch):
    write_subjects(tmp_path, {})
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    assert read_subjects(DATASET) == ({}, "splits_ssl.json names no subjects")
