"""The console scripts of nnU-Net and of this package, as other processes start them."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path

from nnunet_ssl.errors import INSTALL, complain


def find_command(name: str) -> str:
    """The console script that belongs to this Python, whatever else is on PATH.

    Raises:
        SemiSupervisedError: it is not installed.
    """
    folders = [str(Path(sys.executable).parent), sysconfig.get_path("scripts")]
    found = shutil.which(name, path=os.pathsep.join(folders)) or shutil.which(name)
    if found is None:
        where = " or ".join(folders)
        raise complain(f"The command {name} is not installed in {where}.", remedy=f"Run: {INSTALL}")
    return found
