"""The import rule: data flows one way, so imports do too. Read from the source, then tried in a fresh interpreter."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
HEAVY = ("torch", "open_clip", "numpy")


def _module_name(file: Path) -> str:
    parts = file.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {_module_name(file): file for file in (SOURCE / "forclip").rglob("*.py")}


def below(package: str) -> list[str]:
    return sorted(m for m in FILES if m == package or m.startswith(package + "."))


def _statements(node: ast.AST, at_module_level: bool) -> Iterator[ast.stmt]:
    """All statements that run: those for type checkers never do, those of functions not while importing."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        if at_module_level and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(child, ast.stmt):
            yield child
        yield from _statements(child, at_module_level)


@cache
def imports(module: str, at_module_level: bool) -> frozenset[str]:
    """The modules that a module imports itself, of forclip and others. Importing a.b also imports a."""
    package = module if FILES[module].name == "__init__.py" else module.rpartition(".")[0]
    found: set[str] = set()
    for statement in _statements(ast.parse(FILES[module].read_text()), at_module_level):
        if isinstance(statement, ast.Import):
            found |= {alias.name for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom):
            start = statement.module or ""
            if statement.level:
                base = package.split(".")[: len(package.split(".")) - statement.level + 1]
                start = ".".join([*base, start] if start else base)
            found |= {start} | {f"{start}.{a.name}" for a in statement.names if f"{start}.{a.name}" in FILES}
    return frozenset(found)


def reached(module: str, at_module_level: bool = False) -> dict[str, str]:
    """All modules reached from one, each with the module that imports it."""
    importer: dict[str, str] = {}
    waiting = [module]
    while waiting:
        current = waiting.pop()
        # A package's own __init__ runs when a module below it is imported; its functions are not called by that.
        parents = [current.rsplit(".", k)[0] for k in range(1, current.count(".") + 1)]
        found = set(imports(current, at_module_level)).union(*(imports(p, True) for p in parents))
        for imported in sorted(found - importer.keys()):
            importer[imported] = current
            if imported in FILES:
                waiting.append(imported)
    return importer


def offences(module: str, forbidden: tuple[str, ...], at_module_level: bool = False) -> list[str]:
    return [
        f"{importer} imports {imported}"
        for imported, importer in reached(module, at_module_level).items()
        if any(imported == f or imported.startswith(f + ".") for f in forbidden)
    ]


def test_the_reading_of_imports_finds_what_is_there() -> None:
    """Against modules known to import these: directly, relatively, and by way of others."""
    assert "torch" in imports("forclip.losses", True)
    assert "forclip.data.pictographs.canvas" in imports("forclip.data.pictographs", True)
    assert "forclip.data.pictographs.canvas" in imports("forclip.data.pictographs.glyphs", True)
    assert "forclip.losses" in reached("forclip.finetuning")
    assert offences("forclip.comparison", ("scipy",)) == [
        "forclip.models.ward imports scipy.sparse",
        "forclip.confidence_fit imports scipy.optimize",
        "forclip.confidence_fit imports scipy.special",
        "forclip.places imports scipy",
    ]
    assert offences("forclip.recipes.mini_clip", ("torch",))


def test_losses_see_tensors_only() -> None:
    assert {m for m in imports("forclip.losses", False) if m.split(".")[0] == "forclip"} == set()


@pytest.mark.parametrize("module", below("forclip.models"))
def test_models_never_see_a_dataset(module: str) -> None:
    assert offences(module, ("forclip.data",)) == []


TORCH_FREE = (
    *below("forclip.index"),
    "forclip.evaluation.metrics",
    "forclip.evaluation.calibration",
    "forclip.confidence",
    "forclip.combined_queries",
    "forclip.looking",
    "forclip.evaluation.pointing",
    "forclip.feedback",
    "forclip.types",
)


@pytest.mark.parametrize("module", [*TORCH_FREE, "forclip.confidence_fit", "forclip.evaluation.confidence_report"])
def test_index_and_metrics_are_free_of_torch(module: str) -> None:
    assert offences(module, ("torch", "open_clip")) == []


# From the bottom up. A module imports from its own layer and those before it; a package stands for what is in it, but
# for what has a line of its own.
LAYERS = (
    # The first is forclip itself: it imports when it is asked.
    ("", "types", "config", "data_config", "progress", "image_ids"),
    ("losses", "prompt_templates", "published_splits", "vocabulary"),
    ("objectives",),
    # Before the models: a trained one has a text side, and knows what its scores are worth.
    ("class_vectors", "confidence"),
    ("prompts", "text_cache", "data", "models", "index", "evaluation.metrics", "labelled_fraction", "places"),
    ("evaluation", "wording", "class_choice"),
    ("held_back", "confidence_fit", "supervision", "interpolation", "training", "embedding", "heatmap", "search"),
    ("combined_queries", "feedback", "store_labels", "class_evaluation", "relevance"),
    ("looking",),
    ("search_request",),
    ("labelled_answer",),
    ("search_answer", "exporting", "looking_answer", "looking_picture"),
    ("search_report",),
    ("data_check", "index_plan", "image_metadata", "embedding_parts", "token_store", "token_writer", "token_cache"),
    ("indexing",),
    ("teachers", "head_start", "teacher_choice", "trials"),
    ("finetuning",),
    ("comparison",),
    ("grids", "reporting", "interpolation_curve", "runs"),
    ("recipes",),
    ("recipe_run", "ablation_report", "ablation", "demo"),
    ("cli", "server"),
)
LAYER_OF = {name: k for k, names in enumerate(LAYERS) for name in names}


def layer(module: str) -> int | None:
    """That of the module itself, or else of the nearest package that it is in."""
    parts = module.split(".")[1:]
    prefixes = [".".join(parts[:k]) for k in range(len(parts), 0, -1)] or [""]
    return next((LAYER_OF[prefix] for prefix in prefixes if prefix in LAYER_OF), None)


def test_every_module_has_a_layer() -> None:
    assert [module for module in sorted(FILES) if layer(module) is None] == []
    assert layer("forclip.evaluation.metrics") != layer("forclip.evaluation.metrics_file") == LAYER_OF["evaluation"]


def test_imports_point_one_way() -> None:
    upward = []
    for module in FILES:
        mine = layer(module)
        for imported in reached(module):
            theirs = layer(imported) if imported in FILES else None
            if mine is not None and theirs is not None and theirs > mine:
                upward.append(f"{module} reaches {imported}, by way of {reached(module)[imported]}")
    assert upward == []


def test_every_layer_is_of_modules_that_exist() -> None:
    assert [name for name in LAYER_OF if f"forclip.{name}".rstrip(".") not in FILES] == []


def test_the_server_cannot_reach_training() -> None:
    training = ("forclip.training", "forclip.finetuning", "forclip.objectives")
    assert [o for module in below("forclip.server") for o in offences(module, training)] == []


def test_the_command_line_starts_light() -> None:
    """`forclip --help` must not wait for torch."""
    if "forclip.cli" not in FILES:
        pytest.skip("there is no command line yet")
    assert offences("forclip.cli", HEAVY, at_module_level=True) == []


def loaded_by(modules: list[str]) -> set[str]:
    """Which of the heavy modules a fresh interpreter has loaded after importing these."""
    code = f"import sys, {', '.join(modules)}; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(SOURCE)}, capture_output=True, check=True)
    return set(run.stdout.decode().split())


def test_no_library_brings_torch_in_by_the_back_door() -> None:
    assert loaded_by([*TORCH_FREE]) == {"numpy"}
    if "forclip.cli" in FILES:
        assert loaded_by(["forclip.cli"]) == set()
