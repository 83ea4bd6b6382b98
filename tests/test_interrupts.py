"""Ctrl-C reaches one process, and ends the command line in one line."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from forclip.interrupts import interrupts_held_back

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@linux
def test_a_process_that_is_started_while_interrupts_are_held_back_never_gets_one() -> None:
    with interrupts_held_back():
        process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
        process.start()
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()  # before it has loaded Python
        blocked = int(next(line for line in status.splitlines() if line.startswith("SigBlk")).split()[1], 16)
        assert blocked & 1 << signal.SIGINT - 1
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    finally:
        process.kill()
        process.join()


@linux
@pytest.mark.parametrize("threads", [0, 3])
def test_an_interrupt_is_delivered_when_the_block_ends(threads: int) -> None:
    """Also while other threads run, which the system may give the signal to."""
    reached, end = [], threading.Event()
    for _ in range(threads):
        threading.Thread(target=end.wait, daemon=True).start()
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), interrupts_held_back():  # noqa: PT012 (the end of the block raises)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
        reached.append(1)
    end.set()
    assert reached == [1]
    assert signal.getsignal(signal.SIGINT) is before


INTERRUPTED_IMPORT = """
import sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "forclip.cli.train":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt())
from forclip.cli import main
main()
"""


def test_an_interrupt_while_the_commands_are_loaded_is_one_line() -> None:
    ended = subprocess.run([sys.executable, "-c", INTERRUPTED_IMPORT, "models"], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "forclip: interrupted\n")
