"""The script as several processes."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import get_interpretations_from_examples as script
import pytest
import torch
from safetensors.torch import save_file
from tiny_folder import SHORT_PROMPT, write_json, write_tiny_folder
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY
from transformers.interpretation import AffineMap
from transformers.interpretation.translator import save_maps

HERE = Path(__file__).resolve().parent
SCRIPT = Path(script.__file__)
SMALL_CHUNKS = HERE / "small_chunks.py"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_json(tmp_path / "short.json", SHORT_PROMPT)
    return tmp_path


def run_campaign(workplace, *arguments):
    (workplace / "outputs").mkdir()
    fixed = ["--model", "model", "--interpretation-prompt", "short.json", "--max-new-tokens", "3", "--no-report"]
    fixed += ["--dtype", "float32", "--device", "cpu"]
    command = [sys.executable, HERE / "rank_campaign.py", SCRIPT, workplace / "outputs", *fixed, *arguments]
    ended = subprocess.run([str(part) for part in command], env=ENVIRONMENT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert (told["tables"], told["different"]) == (3, 0)
    assert told["stopped"] > 0
    return told


def test_ranks_of_vectors_killed_and_resumed(workplace):
    write_tiny_folder(workplace / "model")
    rows = torch.randn(60, 32, generator=torch.Generator().manual_seed(0))
    rows[7, 7] = float("nan")
    save_file({"v": rows}, workplace / "vectors.safetensors")
    run_campaign(workplace, "--vectors", "vectors.safetensors", "--strength", "auto", "--samples", "2")


def test_ranks_killed_at_random_moments_and_resumed_by_other_numbers_of_them(workplace):
    """1, 2 and 3 ranks, one of them killed or all; and what they say. Each maps what another model reads."""
    write_tiny_folder(workplace / "model")
    write_tiny_folder(workplace / "source", model=tiny_model(vocab_size=VOCABULARY, hidden_size=24))
    maps = {layer: AffineMap(torch.eye(24, 32).roll(layer, 0), torch.ones(32)) for layer in range(5)}
    save_maps(maps, workplace / "maps.safetensors")
    write_json(workplace / "examples.json", {"examples": [{"prompt": f"Hi {n}", "raw": True} for n in range(12)]})
    told = run_campaign(
        workplace, "--examples", "examples.json", "--source-model", "source", "--mapping", "maps.safetensors"
    )
    # Once, however many ranks there are. The one that says nothing ends well or is ended by the launcher.
    assert re.fullmatch(r"error: layers: 99 is out of range: [^\n]+\n\[(2, 0|2, -15|0, 2)\]", told["refused"])
    assert told["usage"].count("unrecognized arguments: --no-such-option") == 1
    assert told["usage"].endswith("[2, -15]")
    line = (
        r"error: interrupted; [\d,]+ interpretations are safe for [^\n]+; to resume, repeat: accelerate launch … [^\n]+"
    )
    assert len(re.findall(line, told["interrupted"])) == told["interrupted"].count("interrupted;") == 1
    assert "Traceback" not in told["interrupted"]
    assert told["interrupted"].endswith("[130, 130]")
    assert told["raised"].count('raise ValueError("boom")\nValueError: boom\n') == 1
    # Rank 0 says so too, and may end first, unless the launcher, which ends all with the first, is faster.
    why = re.search(r"error: rank 1 on \S+: ValueError: boom; to resume", told["raised"])
    assert told["raised"].endswith("[99, -15]") or (why and told["raised"].endswith(("[99, 1]", "[1, 99]")))


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def launcher(processes, *options):
    """accelerate's. It starts several processes on CPUs only if it is told that they are GPUs."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes)]
    return [*command, *options, str(SMALL_CHUNKS)]


def test_ranks_of_accelerate_on_the_embedded_model(embedded_folder, workplace):
    """Killed, resumed by other numbers of ranks, and finished by two launchers as two machines: always the same."""
    write_json(workplace / "examples.json", {"examples": [{"prompt": "The capital of Japan is", "raw": True}]})
    arguments = ["--model", str(embedded_folder), "--examples", "examples.json", "--layers", "0:30:3", "--no-report"]
    arguments += [
        "--max-new-tokens",
        "2",
        "--dtype",
        "float32",
        "--device",
        "cpu",
        "--interpretation-prompt",
        "short.json",
    ]
    search = os.pathsep.join([str(SCRIPT.parent), *sys.path])

    def start(command, output, **more):
        environment = {**ENVIRONMENT, "PYTHONPATH": search, **more}
        command = [*command, *arguments, "--output", output]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    whole = start([sys.executable, str(SMALL_CHUNKS)], "whole.csv")
    assert "60 interpretations in" in whole.communicate()[0]

    one_killed = start(launcher(2, "--main_process_port", free_port()), "out.csv", DIE="1:1")
    assert "exitcode  : -9" in one_killed.communicate()[1]
    assert one_killed.returncode == 1
    all_killed = start(launcher(3, "--main_process_port", free_port()), "out.csv", DIE="all:1")
    assert "resuming after" in all_killed.communicate()[1]
    assert all_killed.returncode == -9
    assert Path("out.csv").read_bytes() != Path("whole.csv").read_bytes()

    machines = ["--num_machines", "2", "--main_process_ip", "127.0.0.1", "--main_process_port", free_port()]
    launched = [start(launcher(2, *machines, "--machine_rank", str(number)), "out.csv") for number in range(2)]
    with ThreadPoolExecutor(2) as pool:  # at once: a launcher whose pipe is full would wait, and the other for it
        said = list(pool.map(subprocess.Popen.communicate, launched))
    assert [process.returncode for process in launched] == [0, 0], said
    assert re.search(r"60 interpretations \(\d+ from an earlier run\) in", said[0][0])
    assert said[1][0] == ""
    assert Path("out.csv").read_bytes() == Path("whole.csv").read_bytes()
    assert not Path("out.csv.shards").exists()
