"""Threads of OpenMP: as many as the process may use, and asleep while they wait."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from forclip import cpu

_SHOW = (
    "import os, sys; "
    "print(os.environ.get('OMP_WAIT_POLICY'), os.environ.get('OMP_NUM_THREADS'), 'torch' in sys.modules)"
)


@pytest.mark.parametrize(
    ("content", "expected"),
    [("max 100000", 6), ("250000 100000", 3), ("10000 100000", 1), ("800000 100000", 6), ("?", 6)],
)
def test_a_containers_quota_limits_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(6)), raising=False)
    (tmp_path / "cpu.max").write_text(f"{content}\n")
    monkeypatch.setattr(cpu, "_QUOTA", tmp_path / "cpu.max")
    assert cpu.usable_cores() == expected
    monkeypatch.setattr(cpu, "_QUOTA", tmp_path / "none")
    assert cpu.usable_cores() == 6


def environment_after(code: str, **given: str) -> list[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OMP_")} | given
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_waiting_threads_sleep_unless_the_user_says_otherwise() -> None:
    code = f"from forclip.cpu import set_up_threads; set_up_threads(); {_SHOW}"
    assert environment_after(code)[0::2] == ["PASSIVE", "False"]
    assert environment_after(code, OMP_WAIT_POLICY="ACTIVE", OMP_NUM_THREADS="5") == ["ACTIVE", "5", "False"]


def test_the_command_line_sets_threads_before_pytorch_is_loaded() -> None:
    code = (
        "import sys; sys.argv = ['forclip', '--threads', '3', 'index', '--help']\n"
        "from forclip.cli import main\n"
        f"try: main()\nexcept SystemExit: pass\n{_SHOW.replace('print(', 'print(chr(10), ')}"
    )
    assert environment_after(code)[-3:] == ["PASSIVE", "3", "False"]
