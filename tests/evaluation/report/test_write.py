"""The whole report of the synthetic benchmark."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.evaluation.report import forest_figure, statistics
from nnunet_ssl.evaluation.report.drawing import DPI, to_png
from nnunet_ssl.evaluation.report.quantities import MISSING, short_name
from nnunet_ssl.evaluation.report.write import write_report
from nnunet_ssl.external.nnunet_ssl_trainers import NAMES
from tests.evaluation.report import synthetic
from tests.evaluation.report.browser import browser, screenshot, visit
from tests.evaluation.report.conftest import FOLDERS
from tests.evaluation.report.synthetic import CONTROL, FAILED, METHOD_A


def test_files(report):
    assert sorted(path.name for path in report.iterdir()) == [
        "figures", "index.html", "report.csv", "report.md", "report.tex",
    ]  # fmt: skip
    assert len(list((report / "figures").iterdir())) == 8


def test_markdown(report):
    text = re.sub(" +", " ", (report / "report.md").read_text())  # columns are padded
    assert "### Split n6: 6 labelled cases, labels of 10 withheld" in text
    control = ["Supervised (control)", "61.0 ± 12.9", MISSING, MISSING, "3.90 ± 1.29", MISSING, MISSING, "0 of 16"]
    assert f"| {' | '.join(control)} |" in text
    assert "| MeanTeacher | 63.5 ± 14.2 | +2.5 [+1.5, +3.5] | 0.250 |" in text
    assert f"- {FAILED}: failed, in stage train: RuntimeError: out of memory & time_100%" in text
    assert "23 of 24 training runs are complete." in text and "best on validation" not in text
    links = [line.split("](")[1].rstrip(")") for line in text.splitlines() if line.startswith("![")]
    assert len(links) == 8 and all((report / link).is_file() for link in links)
    assert "| Doe & Roe Table 2 | X_Net | 6 of 80 | mean | 81.25 % | 3.5 voxel | not directly:" in text


def test_rows_whose_checkpoint_was_chosen_on_the_validation_cases_are_marked(tmp_path):
    folder = synthetic.build(tmp_path, trainers=(CONTROL, METHOD_A), splits={"n6": (6, 10)}, seeds=(0,), failed=())
    for file in folder.glob(f"jobs/*{METHOD_A}*/evaluation.json"):
        predicted = {"checkpoint": "checkpoint_best.pth", "stride": [4, 4, 4]}
        file.write_text(json.dumps(json.loads(file.read_text()) | {"predicted": predicted}))
    for file in folder.glob(f"jobs/*{CONTROL}*/evaluation.json"):
        predicted = {"checkpoint": "checkpoint_final.pth", "stride": [4, 4, 4]}
        file.write_text(json.dumps(json.loads(file.read_text()) | {"predicted": predicted}))
    made = Path(write_report(str(folder), metrics=("dice",)))
    text = re.sub(" +", " ", (made / "report.md").read_text())
    assert "| MeanTeacher best on validation | " in text and "| Supervised (control) | " in text
    assert f"- best on validation: of {METHOD_A} the checkpoint that did best on the validation cases" in text
    assert "The cases of this table are those" in text
    assert "network at the end of training, but for those marked best on validation." in text
    frame = pd.read_csv(made / "report.csv")
    assert frame.groupby("trainer")["best_on_validation"].unique().map(list).to_dict() == {
        CONTROL: [False], METHOD_A: [True],
    }  # fmt: skip


def test_csv(report):
    frame = pd.read_csv(report / "report.csv")
    chosen = frame[(frame["trainer"] == METHOD_A) & (frame["class"] == "mean") & (frame["metric"] == "dice")]
    assert dict(zip(chosen["split"], chosen["mean"], strict=True)) == pytest.approx({"n6": 0.635, "n12": 0.73})


def test_latex(report):
    text = (report / "report.tex").read_text()
    assert text.count(r"\begin{table}") == 8  # two splits with four tables each
    assert r"Dataset901\_Tiny" in text and r"Doe \& Roe" in text and r"X\_Net" in text
    assert all(ord(character) < 128 for character in text)


class Collector(HTMLParser):
    """Tags that were opened and not closed, addresses, and text."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "data")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_page_is_whole_and_refers_to_nothing_outside(report):
    page = Collector()
    page.feed((report / "index.html").read_text())
    assert page.open == []
    assert (report / "index.html").read_text().count("<script") == 1 and "iframe" not in page.tags
    assert len(page.addresses) == 9 and all(address.startswith("data:") for address in page.addresses)
    assert "http" not in page.text and "url(" not in page.text and "@import" not in page.text
    assert "out of memory & time_100%" in page.text  # escaped and read back
    assert "best of <5> epochs" in page.text
    assert page.text.index("mean paired difference") < page.text.index("Split n6") < page.text.index("Learning curves")


@pytest.mark.slow
def test_page_in_a_browser(report, tmp_path):
    with browser(tmp_path / "profile") as session:
        page = visit(session, report / "index.html")
        assert page.console == []
        assert page.requests[0] == (report / "index.html").resolve().as_uri()[:80]
        assert all(address.startswith("data:") for address in page.requests[1:])
        pictures = session.execute_script("return [...document.images].map(i => i.complete && i.naturalWidth > 300)")
        assert pictures == [True] * 8
        wide = session.execute_script(
            "return [document.documentElement.scrollWidth, window.innerWidth,"
            " ...[...document.querySelectorAll('.scroll')].map(e => e.scrollWidth - e.clientWidth)]"
        )
        assert wide[0] <= wide[1] and max(wide[2:]) == 0  # nothing is cut off on a laptop
        first = "document.querySelector('article table')"
        names = f"return [...{first}.tBodies[0].rows].map(row => row.cells[0].textContent)"
        click = f"{first}.tHead.rows[1].cells[%d].click();"
        control, *_ = session.execute_script(names)
        assert control == "Supervised (control)"
        assert session.execute_script(click % 1 + names) == ["MeanTeacher", control, "SKCDF"]  # mean Dice
        assert session.execute_script(click % 1 + names) == ["SKCDF", control, "MeanTeacher"]
        assert session.execute_script(click % 2 + names) == ["MeanTeacher", "SKCDF", control]  # a dash stays last
        assert session.execute_script(click % 0 + names) == ["MeanTeacher", "SKCDF", control]
        for width in (1280, 390):
            size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
            session.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            assert session.execute_script("return document.documentElement.scrollWidth") <= width
        session.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        screenshot(session, tmp_path / "page.png")
        assert (tmp_path / "page.png").stat().st_size > 50_000
        bad = tmp_path / "bad.html"  # the test above can fail
        bad.write_text('<link rel="icon" href="data:,"><img src="http://127.0.0.1:9/x.png"><script>oops()</script>')
        page = visit(session, bad)
        assert "http://127.0.0.1:9/x.png" in page.requests
        assert any("oops" in line for line in page.console)


# ---- as many trainers as there are


LONGEST = (CONTROL, *sorted({*NAMES} - {CONTROL}, key=lambda name: (len(name), name))[-19:])
"""The control and nineteen trainers, whose names are the longest."""


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Figure]]:
    """The report of twenty trainers with three fractions of the labels each, and its figures of the differences."""

    def dice(trainer: str, split: str, case: str, name: str, seed: int) -> float:
        return 0.3 + 0.03 * LONGEST.index(trainer) + 0.05 * int(case[-1]) * (1 + LONGEST.index(trainer) % 5)

    figures: list[Figure] = []
    with pytest.MonkeyPatch.context() as patch:
        for name in FOLDERS:
            patch.delenv(name, raising=False)
        patch.setattr(statistics, "RESAMPLES", 99)
        patch.setattr(forest_figure, "to_png", lambda figure: figures.append(figure) or to_png(figure))
        folder = synthetic.build(
            tmp_path_factory.mktemp("crowded"), trainers=LONGEST, splits={"n3": (3, 13), "n6": (6, 10), "n12": (12, 4)},
            folds={0: synthetic.FOLDS[0]}, seeds=(0,), dice=dice, failed=(),
        )  # fmt: skip
        return Path(write_report(str(folder))), figures


@pytest.mark.slow
def test_no_label_of_the_differences_of_twenty_trainers_is_cut_off(crowded):
    _, figures = crowded
    assert len(figures) == 3
    for figure in figures:
        figure.set_dpi(DPI)
        figure.canvas.draw()
        labels = {label.get_text() for label in figure.axes[0].get_yticklabels()}
        assert labels == {short_name(name) for name in LONGEST[1:]}
        drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        assert min(drawn.x0, drawn.y0) >= 0 and drawn.x1 <= width and drawn.y1 <= height


@pytest.mark.slow
def test_a_page_of_twenty_trainers_on_a_laptop_and_on_a_telephone(crowded, tmp_path):
    """Beside tables, which scroll in boxes of their own, nothing is wider than the screen."""
    boxes = "(e => (({left, right, width, height}) => ({left, right, width, height}))(e.getBoundingClientRect()))"
    with browser(tmp_path / "profile") as session:
        assert visit(session, crowded[0] / "index.html").console == []
        session.execute_script("document.querySelectorAll('details').forEach(details => details.open = true)")
        for width in (1280, 390):
            size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
            session.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            assert session.execute_script("return document.documentElement.scrollWidth") <= width
            outside = (
                "return [...document.querySelectorAll('body *')].filter(e => !e.parentElement.closest('.scroll')"
                f" && ({boxes}(e).right > {width} + .5 || {boxes}(e).left < -.5)).map(e => e.outerHTML.slice(0, 80))"
            )
            assert session.execute_script(outside) == []
            tables = "return [...document.querySelectorAll('.scroll')].map(e => e.scrollWidth - e.clientWidth)"
            assert width > 500 or max(session.execute_script(tables)) > 0
            pictures = session.execute_script(
                "return [...document.querySelectorAll('.overview img')].map(i =>"
                f" ({{...{boxes}(i), ratio: i.naturalWidth / i.naturalHeight}}))"
            )
            assert len(pictures) == 3
            for picture in pictures:
                assert picture["width"] > 300 and picture["right"] <= width
                assert picture["width"] / picture["height"] == pytest.approx(picture["ratio"], rel=0.01)


def test_again_gives_the_same_files(tmp_path):
    folder = synthetic.build(tmp_path, splits={"n6": (6, 10)}, trainers=(CONTROL,), seeds=(0,))
    contents = []
    for _ in range(2):
        target = Path(write_report(str(folder)))
        assert target == folder / "report"
        contents.append({path.name: path.read_bytes() for path in target.rglob("*") if path.is_file()})
    assert contents[0] == contents[1]
    assert not [name for name in contents[0] if name.endswith(".tmp")]


def test_nothing_finished(tmp_path):
    folder = synthetic.build(tmp_path, trainers=(CONTROL,), splits={"n6": (6, 10)}, seeds=(0,), failed=())
    for path in (folder / "jobs").glob("*/record.json"):
        path.unlink()
    text = Path(write_report(str(folder)), "report.md").read_text()
    assert "0 of 2 training runs are complete." in text and "There is nothing to compare yet." in text
    assert f"{synthetic.DATASET}__3d_fullres__{CONTROL}__n6__fold0__seed0: not started" in text


def test_unknown_metrics_and_cases(tmp_path):
    folder = synthetic.build(tmp_path, trainers=(CONTROL,), splits={"n6": (6, 10)}, seeds=(0,), failed=())
    with pytest.raises(SemiSupervisedError, match="Unknown metrics"):
        write_report(str(folder), metrics=["dice", "volume"])
    with pytest.raises(SemiSupervisedError, match="not evaluated") as error:
        write_report(str(folder), cases=["case_0", "case_9", "x"])
    assert "case_9" in str(error.value) and "  - x" in str(error.value) and "  - case_0" not in str(error.value)
    assert not (folder / "report").exists()
