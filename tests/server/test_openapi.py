"""The service against its own OpenAPI document: what fits it is answered as it says, what doesn't is refused."""

import subprocess
import sys
from pathlib import Path

import pytest

SCHEMATHESIS = Path(sys.executable).parent / "schemathesis"


@pytest.mark.skipif(not SCHEMATHESIS.exists(), reason="schemathesis is not installed")
def test_every_call_answers_as_the_document_says(address: str, tmp_path: Path) -> None:
    command = [str(SCHEMATHESIS), "run", f"{address}openapi.json", "--phases", "examples,coverage,fuzzing"]
    # A document can't say what is SQL, and what is a picture.
    options = ["--max-examples", "20", "--seed", "1", "--exclude-checks", "positive_data_acceptance"]
    run = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, timeout=250)
    assert run.returncode == 0, run.stdout[-5000:]
    assert "21 selected / 21 total" in run.stdout
