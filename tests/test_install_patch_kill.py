"""install_patch.py interrupted: killed, out of space, without permission. `installer_campaign` does it and counts."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import installer_campaign
import pytest

CAMPAIGNS = {
    "random-kills": installer_campaign.RANDOM_KILLS,
    "kills failing-update": 150,
    "failures update": 100,
    "kills restore": 100,
    "kills install": 100,
    "no-permission": 4,
}
"""Arguments of the program; how many runs there are at least."""


@pytest.mark.parametrize(("campaign", "least"), CAMPAIGNS.items())
def test_every_run_ends_in_a_whole_state(campaign: str, least: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # pytest's own folders are closed to the reader who is not the one who runs the tests
        command = [sys.executable, "-S", installer_campaign.__file__, folder, *campaign.split()]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert found["problems"] == []
    assert found["runs"] >= least
