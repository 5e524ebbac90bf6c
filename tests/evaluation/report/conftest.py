from __future__ import annotations

from pathlib import Path

import pytest

from nnunet_ssl.evaluation.report.write import write_report
from tests.evaluation.report import synthetic

FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


@pytest.fixture(autouse=True)
def no_nnunet_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report finds what it needs in the benchmark folder, unless a test says otherwise."""
    for name in FOLDERS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def pictured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The synthetic benchmark with images and checkpoints; only read by the tests."""
    return synthetic.build(tmp_path_factory.mktemp("pictured"), pictures=True)


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small file of reported numbers."""
    path = tmp_path_factory.mktemp("published") / "published.csv"
    path.write_text(
        "paper,method,dataset,labeled,total,metric,value,std,unit,class,note,source\n"
        "Doe & Roe,X_Net,Tiny,6,80,dice,81.25,1.0,%,mean,best of <5> epochs,Table 2\n"
        "Doe & Roe,X_Net,Tiny,6,80,dice,71,,%,ball,,Table 2\n"
        "Doe & Roe,X_Net,Tiny,6,80,hd95,3.5,,voxel,mean,,Table 2\n"
        "Poe,Y-Net,tiny,15,20,dice,84,,%,ball,,Table 1\n"
        "Poe,Y-Net,tiny,5,20,dice,80,,%,mean,,Table 1\n"
        "Poe,Z-Net,LA,6,16,dice,90,,%,mean,,Table 1\n"
    )
    return path


@pytest.fixture(scope="session")
def report(pictured: Path, published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole report of the synthetic benchmark; only read by the tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in FOLDERS:
            patch.delenv(name, raising=False)
        patch.setattr("nnunet_ssl.evaluation.report.published.PATH", published)
        return Path(write_report(str(pictured), str(tmp_path_factory.mktemp("report") / "new")))
