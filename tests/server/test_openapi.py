"""The service conforms to its own OpenAPI document."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCHEMATHESIS = Path(sys.executable).parent / "schemathesis"


@pytest.mark.skipif(not SCHEMATHESIS.exists(), reason="schemathesis is not installed")
def test_every_response_conforms_to_the_openapi_document(address: str, tmp_path: Path) -> None:
    command = [str(SCHEMATHESIS), "run", f"{address}openapi.json", "--phases", "examples,coverage,fuzzing"]
    # OpenAPI can't describe which strings are valid SQL or which bytes are an image.
    options = ["--max-examples", "20", "--seed", "1", "--exclude-checks", "positive_data_acceptance"]
    run = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, timeout=250)
    assert run.returncode == 0, run.stdout[-5000:]
    assert re.search(r"\b(\d\d) selected / \1 total", run.stdout)
