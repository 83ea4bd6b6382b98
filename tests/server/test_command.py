"""The command `forclip serve`."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from forclip.cli import app


def test_serve_runs_until_interrupted(store_folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "forclip", "serve", str(store_folder / "store"), "--port", str(port)]
    environment = {**os.environ, "FORCLIP_TOKEN": "from the environment", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        link = next(word for word in line.split() if word.startswith("http"))
        assert line.startswith("60 images: ")
        # The link is printed just before the service listens, so retry; each wait is twice as long as the last.
        transport = httpx.HTTPTransport(retries=6)
        with httpx.Client(transport=transport, follow_redirects=True) as client:
            page = client.get(link)
            assert page.status_code == 200
            assert "<title>forclip</title>" in page.text
            assert client.get(f"http://127.0.0.1:{port}/api/info").json()["images"] == 60
        assert httpx.get(f"http://127.0.0.1:{port}/api/info").status_code == 401
        process.send_signal(signal.SIGINT)
        assert process.wait(20) in (0, 130, -signal.SIGINT)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--host", "0.0.0.0"], "--token"),
        (["--host", "0.0.0.0", "--token", "short"], "8 characters"),
    ],
)
def test_an_unsafe_host_or_token_is_refused(store_folder: Path, arguments: list[str], named: str) -> None:
    result = CliRunner().invoke(app, ["serve", str(store_folder / "store"), *arguments])
    assert result.exit_code == 2
    assert named in result.output + result.stderr


def test_a_port_in_use_is_reported(store_folder: Path) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        result = CliRunner().invoke(app, ["serve", str(store_folder / "store"), "--port", str(busy.getsockname()[1])])
    assert result.exit_code == 2
    assert "in use" in result.stderr


def test_a_folder_without_a_store_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["serve", str(tmp_path)])
    assert result.exit_code == 2
    assert "no forclip store" in result.stderr
