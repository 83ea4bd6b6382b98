"""The file tree in CONTRIBUTING.md is the file tree, and says of each file what the file says of itself."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("src", "benchmarks", "examples")


def listing() -> dict[Path, str]:
    """The purpose that stands beside each file, by its path from the root. Two blanks more are one folder further."""
    (tree,) = re.findall(r"```\n(src/.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    found: dict[Path, str] = {}
    folders: list[str] = []
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name, _, purpose = line.strip().partition(": ")
        del folders[depth:]
        if purpose:
            found[Path(*folders, name)] = purpose
        else:
            folders.append(name)
    return found


def first_sentence(file: Path) -> str:
    """Of the module's docstring, without the full stop."""
    text = " ".join((ast.get_docstring(ast.parse(file.read_text())) or "").split())
    return re.split(r"\.(?: |$)", text)[0]


def test_every_file_is_listed_with_the_first_sentence_of_its_docstring() -> None:
    files = [file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py")) if file.read_text().strip()]
    said = listing()
    wrong = [
        f"{path}: {first_sentence(ROOT / path)}"
        for path in (file.relative_to(ROOT) for file in files)
        if not first_sentence(ROOT / path) or not said.get(path, "").startswith(first_sentence(ROOT / path))
    ]
    assert not wrong, "CONTRIBUTING.md should say:\n" + "\n".join(wrong)


def test_every_file_that_is_listed_is_there() -> None:
    assert [str(path) for path in listing() if not (ROOT / path).is_file()] == []


def test_the_reading_of_the_tree_finds_what_is_there() -> None:
    said = listing()
    assert said[Path("src/forclip/data/pictographs/canvas.py")].startswith("A drawing surface in unit coordinates")
    assert Path("benchmarks/throughput.py") in said
    assert len(said) > 100
