"""`forclip serve` as it is typed."""

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


def test_it_serves_until_it_is_stopped(made_store: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "forclip", "serve", str(made_store / "store"), "--port", str(port)]
    environment = {**os.environ, "FORCLIP_TOKEN": "from the environment", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as running:
        assert running.stdout is not None
        line = running.stdout.readline()
        link = next(word for word in line.split() if word.startswith("http"))
        assert line.startswith("60 images: ")
        # Retries wait, each twice as long as the one before: the link is printed just before the service listens.
        transport = httpx.HTTPTransport(retries=6)
        with httpx.Client(transport=transport, follow_redirects=True) as client:
            page = client.get(link)
            assert page.status_code == 200
            assert "<title>forclip</title>" in page.text
            assert client.get(f"http://127.0.0.1:{port}/api/info").json()["images"] == 60
        assert httpx.get(f"http://127.0.0.1:{port}/api/info").status_code == 401
        running.send_signal(signal.SIGINT)
        assert running.wait(20) in (0, 130, -signal.SIGINT)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--host", "0.0.0.0"], "--token"),
        (["--host", "0.0.0.0", "--token", "short"], "at least 8 characters"),
    ],
)
def test_what_would_not_be_safe_is_refused(made_store: Path, arguments: list[str], told: str) -> None:
    result = CliRunner().invoke(app, ["serve", str(made_store / "store"), *arguments])
    assert result.exit_code == 2
    assert told in result.output + result.stderr


def test_a_port_that_is_taken_is_told(made_store: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = CliRunner().invoke(app, ["serve", str(made_store / "store"), "--port", str(taken.getsockname()[1])])
    assert result.exit_code == 2
    assert "in use" in result.stderr


def test_no_store_is_told(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["serve", str(tmp_path)])
    assert result.exit_code == 2
    assert "no forclip store" in result.stderr
