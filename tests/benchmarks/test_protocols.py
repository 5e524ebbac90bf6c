"""The protocol files of benchmarks/protocols, and giving a dataset the folds and labelled cases of one."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import apply
import pytest
import yaml
from protocol_file import METHODS, dataset_units, draw_parts, form_problems, read_protocol, resolve

from nnunet_ssl.data.splits import load_fold, read_splits
from nnunet_ssl.errors import SemiSupervisedError
from tests.benchmarks.conftest import PROTOCOLS, in_name_only

FILES = sorted(path.name for path in PROTOCOLS.glob("*.yaml"))
OF_ISSUE = [
    "acdc.yaml",
    "amos.yaml",
    "kits19.yaml",
    "la.yaml",
    "lits.yaml",
    "pancreas_ct.yaml",
    "synapse.yaml",
    "synapse_8_organs.yaml",
]


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """planned(cases) -> preprocessed dataset 777 in name only; its raw files are empty."""

    def make(cases: list[str], name: str = "Dataset777_Toy") -> Path:
        return in_name_only(tmp_path, monkeypatch, name, cases)

    return make


def protocol(name: str) -> dict:
    return read_protocol(PROTOCOLS / name)


def folds_of(base: Path) -> list[dict]:
    return json.loads((base / "splits_final.json").read_text())


# --- the files ---


def test_all_datasets_of_the_papers_are_there():
    assert set(OF_ISSUE) <= set(FILES)
    covered = {paper for name in FILES for paper in protocol(name)["papers"]}
    assert covered == set(METHODS)


@pytest.mark.parametrize("name", FILES)
def test_file_is_a_protocol(name):
    content = protocol(name)
    assert form_problems(content) == []
    assert content["splits"], "directly usable: at least one split"
    assert content["preparation"][-1].startswith(f"python benchmarks/protocols/apply.py benchmarks/protocols/{name} -d")
    for command in content["preparation"]:
        if (script := command.split()[1]).startswith("benchmarks/"):
            assert (PROTOCOLS.parents[1] / script).is_file()
    values = [value for name, value in content["labels"].items() if name != "background"]
    assert values == list(range(1, len(values) + 1))


@pytest.mark.parametrize(
    ("name", "split", "train", "val", "test", "labeled"),
    [
        ("la.yaml", "standard", [80], [20], 0, {"uamt4": 4, "uamt8": 8, "uamt16": 16}),
        ("la.yaml", "folds", [80] * 5, [20] * 5, 0, {"mcf16": 16}),
        ("acdc.yaml", "standard", [70], [10], 20, {"ssl4mis3": 3, "ssl4mis7": 7, "ssl4mis14": 14}),
        ("pancreas_ct.yaml", "folds", [62, 62, 61, 61], [20, 20, 21, 21], 0, {"luseg12": 12}),
        ("synapse.yaml", "skcdf", [20], [4], 6, {"skcdf2": 2, "skcdf4": 4, "skcdf8": 8}),
        ("synapse.yaml", "dhc", [20], [4], 6, {"dhc2": 2, "dhc4": 4, "dhc8": 8}),
        ("amos.yaml", "dhc", [216], [24], 120, {"dhc4": 4, "dhc10": 10, "dhc21": 21}),
        ("kits19.yaml", "own", [150], [20], 40, {"own4": 4, "own15": 15}),
        ("lits.yaml", "own", [105], [20], 6, {"own52": 52}),
        ("synapse_8_organs.yaml", "own", [24], [4], 2, {"own12": 12}),
        ("crag.yaml", "own", [170], [21], 22, {"own17": 17, "own34": 34}),
    ],
)
def test_sizes_of_the_literature(name, split, train, val, test, labeled):
    content = protocol(name)
    units = dataset_units(content) or [f"image_{i}" for i in range(213)]
    found = resolve(content, split, units)
    assert [len(fold.train) for fold in found.folds] == train
    assert [len(fold.val) for fold in found.folds] == val
    assert len(found.test) == test
    assert {label: {len(f) for f in folds} for label, folds in found.labeled.items()} == {
        label: {number} for label, number in labeled.items()
    }
    if content["splits"][split]["origin"] == "published":
        assert found.trained | set(found.test) == set(units) or name == "synapse.yaml"


def test_la_lists():
    content = protocol("la.yaml")
    standard, folds = (resolve(content, split, []) for split in ("standard", "folds"))
    first = standard.folds[0].train
    assert first[:4] == ["06SR5RBREL16DQ6M8LWS", "0RZDK210BSMWAA6467LU", "1D7CUD1955YZPGK8XHJX", "1GU15S0GJ6PFNARO469W"]
    assert first == sorted(first), "the published training list is in alphabetical order"
    assert standard.labeled["uamt4"][0] == first[:4]
    assert standard.labeled["uamt8"][0] == first[:8]
    assert folds.labeled["mcf16"][0] == standard.labeled["uamt16"][0]
    # in all other folds the published lists begin with the standard test scans
    assert all(chosen == standard.folds[0].val[:16] for chosen in folds.labeled["mcf16"][1:])
    assert sorted(unit for fold in folds.folds for unit in fold.val) == dataset_units(content)


def test_synapse_splits_share_their_scans_but_not_their_parts():
    content = protocol("synapse.yaml")
    everything = [f"{i:04d}" for i in (*range(1, 11), *range(21, 41))]
    tests = {}
    for name in ("skcdf", "dhc", "genericssl"):
        split = resolve(content, name, [])
        assert sorted({*split.trained, *split.test}) == everything
        tests[name] = split.test
    assert tests["skcdf"] == tests["genericssl"] != tests["dhc"]


def test_drawn_parts_depend_on_the_seed_alone():
    sizes = {"train": 6, "test": 4}
    units = [f"case_{i}" for i in range(10)]
    parts = draw_parts(units, 0, sizes)
    assert parts == draw_parts(units[::-1], 0, sizes) != draw_parts(units, 1, sizes)
    assert sorted(parts["train"] + parts["test"]) == units
    assert parts["train"][:3] == ["case_2", "case_8", "case_4"]  # RandomState(0).permutation(10) begins 2, 8, 4
    with pytest.raises(ValueError, match="parts of 10 units for 9"):
        draw_parts(units[1:], 0, sizes)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda c: c.pop("labels"), "labels: missing"),
        (lambda c: c["papers"].append("unknown"), "unknown is none of"),
        (lambda c: c["facts"]["published"].pop("runs"), "published.runs is missing"),
        (lambda c: c["facts"]["official"].update(licence={"value": "MIT"}), "official.licence must be"),
        (lambda c: c["facts"]["official"].update(licence={"value": "MIT", "source": "me"}), "me is no source"),
        (lambda c: c["lists"]["val"].append("patient099"), "in train and val: patient099"),
        (lambda c: c["lists"]["train"].append("patient099"), "more than once in train: patient099"),
        (lambda c: c["splits"]["standard"]["counts"].update(train=[69]), "70 train units, 69 stated"),
        (lambda c: c["splits"]["standard"]["labeled"].update({"a__b": {"rule": "first", "count": 1}}), '"a__b"'),
        (lambda c: c["splits"]["standard"].update(origin="mine"), "origin must be one of"),
        (lambda c: c["splits"]["standard"].update(folds=[{"train": ["nothing"], "val": []}]), "nothing"),
        (lambda c: c["case_names"].update(pattern="patient"), "exactly one group"),
    ],
)
def test_faults_of_a_file_are_found(change, problem, tmp_path):
    content = copy.deepcopy(protocol("acdc.yaml"))
    change(content)
    path = tmp_path / "changed.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(SemiSupervisedError) as caught:
        read_protocol(path)
    assert problem in str(caught.value)


# --- giving them to a dataset ---


def acdc_cases(patients: list[str]) -> list[str]:
    return [f"{patient}_frame{frame}" for patient in patients for frame in ("01", "12")]


def test_acdc_reproduces_the_real_splits(planned, real_data, capsys):
    folder = real_data / "acdc"
    images = sorted(path.name for path in (folder / "Dataset027_ACDC" / "imagesTr").glob("*.nii.gz"))
    base = planned([name.removesuffix("_0000.nii.gz") for name in images], "Dataset027_ACDC")
    assert apply.main([str(PROTOCOLS / "acdc.yaml"), "-d", "27"]) == 0
    assert "ssl4mis3, fold 0: 6 labelled, 134 unlabelled, 20 validation cases" in capsys.readouterr().out
    truth = json.loads((folder / "ssl_splits.json").read_text())
    real = json.loads((folder / "splits_final.json").read_text())
    assert [{part: set(fold[part]) for part in fold} for fold in folds_of(base)] == [
        {part: set(fold[part]) for part in fold} for fold in real
    ]
    for label, percent in (("ssl4mis3", "5%"), ("ssl4mis7", "10%"), ("ssl4mis14", "20%")):
        fold = load_fold(str(base), label, 0)
        assert set(fold.labeled) == set(truth["fractions"][percent]["labelled"])
        assert set(fold.unlabeled) == set(truth["fractions"][percent]["unlabelled"])
        assert set(fold.val) == set(truth["val"])
        for part in (fold.labeled, fold.unlabeled, fold.val):  # patients are kept together
            assert len(part) == 2 * len({case[:10] for case in part})
    groups = read_splits(str(base)).groups
    assert groups and all(case.startswith(subject) for case, subject in groups.items())


def test_again_changes_nothing_and_a_second_set_is_added(planned):
    content = protocol("acdc.yaml")
    base = planned(acdc_cases(content["lists"]["train"] + content["lists"]["val"]))
    apply.apply(content, 777)
    before = (base / "splits_ssl.json").read_bytes(), (base / "splits_final.json").read_bytes()
    lines = apply.apply(content, 777)
    assert "splits_final.json: already as in the protocol" in lines
    assert before == ((base / "splits_ssl.json").read_bytes(), (base / "splits_final.json").read_bytes())
    more = copy.deepcopy(content)
    more["splits"]["standard"]["labeled"] = {"ssl4mis1": {"rule": "first", "count": 1}}
    apply.apply(more, 777)
    assert list(read_splits(str(base)).splits) == ["ssl4mis3", "ssl4mis7", "ssl4mis14", "ssl4mis1"]
    assert [len(load_fold(str(base), s, 0).labeled) for s in ("ssl4mis1", "ssl4mis3")] == [2, 6]


def test_other_cases_are_refused_and_listed(planned, capsys):
    content = protocol("acdc.yaml")
    patients = content["lists"]["train"][1:] + content["lists"]["val"] + ["patient150"]
    base = planned(acdc_cases(patients))
    assert apply.main([str(PROTOCOLS / "acdc.yaml"), "-d", "777"]) == 1
    message = capsys.readouterr().err
    assert "patient099: missing in the dataset" in message and "patient150: not in split standard" in message
    assert not (base / "splits_final.json").exists() and not (base / "splits_ssl.json").exists()


def test_names_that_do_not_fit_and_missing_frames_are_refused(planned):
    content = protocol("acdc.yaml")
    cases = acdc_cases(content["lists"]["train"] + content["lists"]["val"])
    planned([*cases[1:], "somebody"])
    with pytest.raises(SemiSupervisedError) as caught:
        apply.apply(content, 777)
    assert "somebody: does not fit" in str(caught.value)
    assert "patient099: 1 cases (patient099_frame12), 2 expected" in str(caught.value)


def test_test_cases_stay_out_of_the_folds_and_are_linked(planned, tmp_path):
    content = protocol("acdc.yaml")
    lists = content["lists"]
    base = planned(acdc_cases(lists["train"] + lists["val"] + lists["test"]))
    assert any("40 test cases are in no fold" in line for line in apply.apply(content, 777))
    fold = folds_of(base)[0]
    assert not {case[:10] for case in fold["train"] + fold["val"]} & set(lists["test"])
    target = tmp_path / "test set"
    assert f"Test cases: 40 in {target / 'images'}" in "\n".join(apply.apply(content, 777, test_folder=str(target)))
    assert sorted(path.name for path in (target / "images").iterdir()) == sorted(
        f"{case}_0000.nii.gz" for case in acdc_cases(lists["test"])
    )
    assert all(path.is_file() for path in (target / "labels").iterdir())
    apply.apply(content, 777, test_folder=str(target))  # again: nothing to do
    link = next((target / "labels").iterdir())
    link.unlink()
    link.write_text("mine")
    with pytest.raises(SemiSupervisedError, match=f"{link.name}: is there already"):
        apply.apply(content, 777, test_folder=str(target))
    assert link.read_text() == "mine"


def test_only_some_test_cases_are_refused(planned):
    content = protocol("acdc.yaml")
    lists = content["lists"]
    planned(acdc_cases(lists["train"] + lists["val"] + lists["test"][1:]))
    with pytest.raises(SemiSupervisedError, match=f"{lists['test'][0]}: missing in the dataset"):
        apply.apply(content, 777)


def test_other_folds_are_kept(planned):
    content = protocol("acdc.yaml")
    train, val = (acdc_cases(content["lists"][part]) for part in ("train", "val"))
    base = planned(train + val)
    text = json.dumps([{"train": train[2:] + val, "val": train[:2]}])
    (base / "splits_final.json").write_text(text)
    with pytest.raises(SemiSupervisedError, match="other folds than the protocol .*158/2"):
        apply.apply(content, 777)
    assert not (base / "splits_ssl.json").exists()
    lines = apply.apply(content, 777, ignore_existing_folds=True)
    assert any("left as it is" in line for line in lines)
    assert (base / "splits_final.json").read_text() == text
    assert load_fold(str(base), "ssl4mis3", 0).val == sorted(val)


def test_a_set_of_the_same_name_with_other_cases_is_kept(planned):
    content = protocol("acdc.yaml")
    base = planned(acdc_cases(content["lists"]["train"] + content["lists"]["val"]))
    apply.apply(content, 777)
    before = (base / "splits_ssl.json").read_bytes()
    content["splits"]["standard"]["labeled"]["ssl4mis3"]["count"] = 2
    with pytest.raises(SemiSupervisedError, match="already holds other splits of these names.*\n  - ssl4mis3"):
        apply.apply(content, 777)
    assert (base / "splits_ssl.json").read_bytes() == before


def test_labelled_cases_of_every_fold(planned):
    content = protocol("la.yaml")
    base = planned(dataset_units(content))
    apply.apply(content, 777, "folds")
    wanted = resolve(content, "folds", []).labeled["mcf16"]
    assert [len(fold["val"]) for fold in folds_of(base)] == [20] * 5
    for index in range(5):
        fold = load_fold(str(base), "mcf16", index)
        assert fold.labeled == sorted(wanted[index]) and len(fold.unlabeled) == 64
    with pytest.raises(SemiSupervisedError, match='no split "fold". It has: standard, folds'):
        apply.apply(content, 777, "fold")


def test_withdrawn_cases_may_be_missing(planned):
    content = protocol("pancreas_ct.yaml")
    units = [unit for unit in dataset_units(content) if unit not in ("PANCREAS_0025", "PANCREAS_0070")]
    base = planned(units)
    lines = apply.apply(content, 777)
    assert "NOTE: withdrawn from the official data and left out: PANCREAS_0025, PANCREAS_0070" in lines
    assert [len(fold["train"]) for fold in folds_of(base)] == [61, 60, 60, 59]
    assert load_fold(str(base), "luseg12", 0).labeled == [f"PANCREAS_{i:04d}" for i in range(1, 13)]
    apply.apply(content, 777, "mcnet", ignore_existing_folds=True)
    assert len(load_fold(str(base), "mcnet12", 0).labeled) == 11  # PANCREAS_0070 is one of the published twelve


def test_drawn_split_of_a_dataset_whose_names_are_not_known(planned, capsys):
    content = protocol("crag.yaml")
    base = planned([f"train_{i}" for i in range(1, 174)] + [f"test_{i}" for i in range(1, 41)])
    apply.apply(content, 777)
    fold = load_fold(str(base), "own17", 0)
    assert [len(part) for part in (fold.labeled, fold.unlabeled, fold.val)] == [17, 153, 21]
    assert set(fold.labeled) < set(load_fold(str(base), "own34", 0).labeled)


def test_too_few_images_are_refused(planned):
    planned([f"train_{i}" for i in range(1, 174)])
    with pytest.raises(SemiSupervisedError, match="The protocol has 213 cases, the dataset 173"):
        apply.apply(protocol("crag.yaml"), 777)


@pytest.mark.parametrize("name", FILES)
def test_list_shows_the_splits(name, capsys):
    assert apply.main([str(PROTOCOLS / name), "--list"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {split} (" in shown for split in protocol(name)["splits"])
    drawn = [split for split in protocol(name)["splits"].values() if split["origin"] == "own"]
    assert shown.count("drawn by this project") == len(drawn)
