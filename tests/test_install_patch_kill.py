"""install_patch.py interrupted: killed, out of space, without permission. `installer_campaign` does it and counts."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
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


@pytest.fixture(scope="module")
def outcome() -> Iterator[Callable[[str], dict]]:
    """What came of a campaign; two at a time run side by side."""

    def run(campaign: str, folder: Path) -> dict:
        command = [sys.executable, "-S", installer_campaign.__file__, str(folder), *campaign.split()]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        Path(folder).chmod(0o755)  # pytest's own folders are closed to the reader who is not the one who runs the tests
        futures: dict[str, Future[dict]] = {}
        for campaign in CAMPAIGNS:
            place = Path(folder) / campaign
            place.mkdir(mode=0o755)
            futures[campaign] = pool.submit(run, campaign, place)
        yield lambda campaign: futures[campaign].result()


@pytest.mark.parametrize(("campaign", "least"), CAMPAIGNS.items())
def test_every_run_ends_in_a_whole_state(outcome: Callable[[str], dict], campaign: str, least: int) -> None:
    found = outcome(campaign)
    assert found["problems"] == []
    assert found["runs"] >= least
