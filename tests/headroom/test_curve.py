"""The curve and the sentence of given scores."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from nnunet_ssl.evaluation.report.load import load_benchmark
from nnunet_ssl.evaluation.report.tables import make_tables
from nnunet_ssl.headroom.curve import conclusion, curve_of
from nnunet_ssl.headroom.page import write_page
from tests.evaluation.report import synthetic

ROOT = Path(__file__).resolve().parents[2]
THREE = {"n12": (12, 12), "n6": (6, 18), "n24": (24, 0)}
BY_SPLIT = {"n6": 0.0, "n12": 0.1, "n24": 0.14}


def rising(trainer, split, case, name, seed):
    """Each case gains as much: 0.1, then 0.04."""
    return synthetic.BASE[case] - 0.1 + BY_SPLIT[split]


def flat(trainer, split, case, name, seed):
    """From 12 to 24 cases two validation cases gain and two lose."""
    more = {"case_0": 0.03, "case_1": -0.02, "case_2": 0.01, "case_3": -0.02}[case]
    return synthetic.BASE[case] + more * (split == "n24")


def built(tmp_path, dice, splits=THREE):
    out = synthetic.build(tmp_path, trainers=(synthetic.CONTROL,), splits=splits, dice=dice, failed=())
    tables = make_tables(load_benchmark(str(out)), ("dice",), synthetic.CONTROL, {synthetic.DATASET: {}})
    return out, curve_of(tables, {})


def test_numbers_of_the_curve(tmp_path):
    _, curve = built(tmp_path, rising)
    assert curve["labeled"].tolist() == [6, 12, 24]
    assert curve["dice"].tolist() == pytest.approx([0.55, 0.65, 0.69])
    assert curve["gain"].isna().tolist() == [True, False, False]
    assert curve[["gain", "gain_low", "gain_high"]].iloc[1:].to_numpy().T.tolist() == [pytest.approx([0.1, 0.04])] * 3
    assert set(curve["trainings"]) == {4} and set(curve["cases"]) == {4}
    assert (curve["dice_low"] < curve["dice"]).all() and (curve["dice_high"] > curve["dice"]).all()


def test_where_labels_help_images_may(tmp_path):
    _, curve = built(tmp_path, rising)
    text = conclusion(curve, unlabeled=72)
    assert text.startswith(
        "With 6, 12 and 24 labelled cases the Dice is 55.0, 65.0 and 69.0 %, the last step being +4.0 points "
        "(95 % interval +4.0 to +4.0). At this slope, labelling the 72 images without labels would add about 8.0 points"
    )  # four times as many cases are two doublings
    assert conclusion(curve, unlabeled=0).endswith(
        "labelling as many images again would add about 4.0 points (4.0 at the upper end of the interval). Used "
        "without labels, they can hardly add more."
    )
    assert "add about 31.0 points (31.0 at" in conclusion(curve, unlabeled=10**6)  # no more than is left to 100 %


def test_a_step_of_four_times_the_labels_is_two_doublings(tmp_path):
    _, curve = built(tmp_path, rising, {"n6": (6, 18), "n24": (24, 0)})
    assert "about 7.0 points (" in conclusion(curve, unlabeled=24)


def test_where_labels_bring_nothing_images_cannot(tmp_path):
    _, curve = built(tmp_path, flat)
    assert curve["gain"].iloc[-1] == pytest.approx(0)
    assert curve["gain_low"].iloc[-1] < 0 < curve["gain_high"].iloc[-1]
    text = conclusion(curve, unlabeled=72)
    assert "0.0 points (95 % interval" in text and "no gain that can be distinguished from chance" in text
    assert "At this slope" not in text


def test_one_validation_case_has_no_interval(tmp_path):
    values = {"labeled": [6, 12], "dice": [0.5, 0.6], "gain": [None, 0.1], "gain_low": None, "gain_high": None}
    text = conclusion(pd.DataFrame(values), unlabeled=12)
    assert "the last step being +10.0 points. At this slope" in text and "about 10.0 points. Used" in text


def test_the_sentences_in_the_documentation_are_those_of_its_table():
    """On ACDC the first step says that much is to be gained, the second that little is."""
    page = (ROOT / "docs" / "how-to" / "headroom.md").read_text(encoding="utf-8")
    rows = [
        [float(number) for number in re.findall(r"[\d.]+", line)]
        for line in re.findall(r"^\| (\d+ \| 0\..*) \|$", page, re.MULTILINE)
    ]
    columns = ("labeled", "dice", "dice_low", "dice_high", "gain", "gain_low", "gain_high")
    curve = pd.DataFrame([dict(zip(columns, row, strict=False)) for row in rows])
    assert curve["labeled"].tolist() == [8, 14, 28]
    quoted = [block.replace("\n> ", " ") for block in re.findall(r"^> (With(?:.|\n)*?)\n\n", page, re.MULTILINE)]
    little, much = conclusion(curve, 0), conclusion(curve.iloc[:2], 0)
    assert quoted == [little, much]
    assert "+26.7 points" in much and "add about 21.0 points" in much and "add about 2.8 points" in little


def test_the_page(tmp_path):
    out, curve = built(tmp_path, rising)
    said = write_page(str(out), 72)
    page = (out / "headroom" / "index.html").read_text()
    assert said == f"{conclusion(curve, 72)}\nCurve: {out / 'headroom' / 'index.html'}"
    assert conclusion(curve, 72) in page and page.count("data:image/png") == 1 and "[4.0, 4.0]" not in page
    assert "+10.0<small>[+10.0, +10.0]" in page
    pd.testing.assert_frame_equal(pd.read_csv(out / "headroom" / "curve.csv"), curve, check_dtype=False)
    assert (out / "headroom" / "curve.png").read_bytes().startswith(b"\x89PNG")
