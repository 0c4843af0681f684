"""`python -m transformers.interpretation.explorer`."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from explorer_client import Client
from tiny_folder import write_tiny_folder
from transformers.interpretation.explorer import __main__ as program
from transformers.interpretation.explorer import server

ASKED = {"prompt": "abc", "raw": True, "interpretation_prompt": {"text": "x: _ is"}, "max_new_tokens": 100}


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_stopped(tmp_path, end):
    command = [sys.executable, "-m", "transformers.interpretation.explorer", "--port", "0", "--dtype", "float32"]
    command += ["--model", str(write_tiny_folder(tmp_path))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            assert line.startswith(f"{tmp_path} is explored at http://127.0.0.1:"), process.stderr.read()
            client = Client(line.split(" at ")[1].split()[0])
            assert client.get("models")[1]["model"] == str(tmp_path)
            with client.stream("interpret", ASKED) as events:  # in the middle of work, too
                next(events)
                process.send_signal(end)
                *_, (last, _) = events
            assert last in ("done", "failed")
            assert process.wait(60) == 0
            assert "Traceback" not in process.stderr.read()
        finally:
            process.kill()


def refusal(capsys, *arguments):
    assert program.main(arguments) == 2
    return capsys.readouterr().err.splitlines()[-1]  # after what loading a model may say


def test_missing_packages_are_named_before_a_model_is_loaded(capsys, monkeypatch):
    monkeypatch.setattr(server, "PACKAGES", ("missing_web_server",))
    told = refusal(capsys, "--model", "nowhere")
    assert told == (
        "error: the explorer needs the package missing_web_server; run: python -m pip install missing_web_server"
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--model", "./nowhere"], "model ./nowhere: there is no such folder"),
        (["--port", "65536"], "port 65536: give an address of this machine, and a port from 0 to 65535"),
        (["--host", "192.0.2.1"], "assign requested address"),
        (["--lens", "nowhere.safetensors"], "nowhere.safetensors is no lens"),
        (["--reader", "./nowhere"], "reader ./nowhere: there is no such file or folder"),
        (["--reader-adapter", "./nowhere"], "adapter ./nowhere: there is no such folder"),
        (["--mapping", "nowhere.safetensors"], "mapping nowhere.safetensors"),
        (["--layers", "99"], "99 is out of range"),
        (["--device", "nowhere"], "device nowhere"),
    ],
)
def test_what_cannot_be_served_is_told_in_a_line(capsys, tmp_path, arguments, told):
    model = [] if "--model" in arguments else ["--model", str(write_tiny_folder(tmp_path)), "--port", "0"]
    assert told in refusal(capsys, *model, *arguments)


def test_a_port_that_is_taken_is_told(capsys, tmp_path, explorer):
    told = refusal(capsys, "--model", str(write_tiny_folder(tmp_path)), "--port", str(explorer.port))
    assert "in use" in told
