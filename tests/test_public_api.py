"""Every public function and class takes paths as text and as Path."""

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest

import forclip
from forclip.models.retrieval_model import store_header
from forclip.search.searcher import Searcher
from forclip.toyworld.dataset import ToyWorld
from forclip.training.runs import load_backbone

AsPath = Callable[[Path], Any]


@pytest.fixture(params=[str, Path], ids=["text", "Path"])
def as_path(request: pytest.FixtureRequest) -> AsPath:
    kind: AsPath = request.param
    return kind


@pytest.fixture(scope="module")
def photos(small_world: ToyWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures."""
    folder = tmp_path_factory.mktemp("photos")
    for file in sorted(small_world.images.glob("gallery_*.jpg"))[:6]:
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.fixture
def run_file(small_world: ToyWorld, tmp_path: Path) -> Path:
    """A run of one epoch on 24 images."""
    content = json.loads(small_world.train_file.read_text())
    kept = {image["id"] for image in content["images"][:24]}
    content["images"] = [image for image in content["images"] if image["id"] in kept]
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] in kept]
    (tmp_path / "labels.json").write_text(json.dumps(content))
    (tmp_path / "run.yaml").write_text(
        f"data: {{train: {{annotations: labels.json, images: '{small_world.images}'}}, allow_unlabelled_base: true}}\n"
        "model: {name: forclip-mini}\nhead: {num_query_tokens: 2}\n"
        "train: {epochs: 1, views: 1, teacher: start, held_back_folds: 0}\neval: {clusters: [2], tiles: none}\n"
    )
    return tmp_path / "run.yaml"


def test_every_public_callable_is_typed_and_documented() -> None:
    for name in forclip.__all__:
        public = getattr(forclip, name)
        assert inspect.getdoc(public), name
        functions = [public] if inspect.isfunction(public) else []
        if inspect.isclass(public):
            members = inspect.getmembers_static(public)
            functions = [m for n, m in members if inspect.isfunction(m) and (n == "__init__" or not n.startswith("_"))]
        for function in functions:
            if not function.__module__.startswith("forclip"):
                continue
            hints = set(inspect.signature(function).parameters) - {"self", "cls"}
            assert hints <= set(function.__annotations__), f"{name}.{function.__name__}"
            assert "return" in function.__annotations__, f"{name}.{function.__name__}"
            if function.__name__ != "__init__":
                assert inspect.getdoc(function), f"{name}.{function.__name__}"


def test_indexing_and_searching(as_path: AsPath, photos: Path, tmp_path: Path) -> None:
    summary = forclip.index_images(
        as_path(photos), as_path(tmp_path / "store"), model="forclip-mini", num_query_tokens=2
    )
    assert summary.added == 6
    searcher = forclip.open_searcher(as_path(tmp_path / "store"))
    results = searcher.search("cat", k=3)
    picture = as_path(Path(results[0].uri))
    assert searcher.search_image(picture, k=1)[0].image_id == results[0].image_id
    assert searcher.encode_image(picture).shape[0] == 2
    assert np.isfinite(searcher.heatmap(picture, searcher.encode_image(picture)[0]).values).all()
    assert len(forclip.Index(as_path(tmp_path / "store"))) == 6
    answer = forclip.select_search(searcher, forclip.SearchRequest(like=as_path(Path(results[0].uri)), k=2), "cat")
    assert forclip.export(answer, "csv", as_path(tmp_path / "out.csv")).counts == {tmp_path / "out.csv": 2}
    chosen = forclip.select_ids(searcher.index, [results[0].image_id], root=as_path(photos))
    forclip.export(chosen, "files", as_path(tmp_path / "out.txt"))
    assert (tmp_path / "out.txt").read_text() == f"{Path(results[0].uri).name}\n"


def test_models_embeddings_and_stores(as_path: AsPath, photos: Path, tmp_path: Path) -> None:
    model = forclip.load_model("forclip-mini", num_query_tokens=2)
    paths = sorted(photos.iterdir())
    embeddings, skipped = forclip.embed_images(model, [as_path(p) for p in paths])
    assert embeddings.image_ids == tuple(map(str, paths))
    assert skipped == ()
    header = store_header(model, forclip.ModelConfig("forclip-mini"), "sum", 2)
    index = forclip.Index.create(as_path(tmp_path / "store"), header)
    index.add(embeddings, [forclip.ImageFile(as_path(p)) for p in paths])
    assert {r.uri for r in Searcher(index, model).search("cat", 6)} == set(map(str, paths))
    labels = np.ones((1, 1), bool)
    assert forclip.Annotations(("a",), (as_path(paths[0]),), ("cat",), labels).paths == (paths[0],)
    with pytest.raises(ValueError, match="list of paths"):
        forclip.embed_images(model, str(paths[0]))


def test_training_and_evaluating(as_path: AsPath, run_file: Path, photos: Path, tmp_path: Path) -> None:
    config = forclip.load_config(as_path(run_file))
    forclip.train(as_path(run_file), as_path(tmp_path / "run"))
    metrics = forclip.evaluate(as_path(run_file), as_path(tmp_path / "eval"), model=as_path(tmp_path / "run"))
    assert "for" in metrics["methods"]
    model = forclip.load_model(as_path(tmp_path / "run"))
    header = store_header(model, forclip.ModelConfig(str(tmp_path / "run")))
    index = forclip.Index.create(as_path(tmp_path / "store"), header, as_path(tmp_path / "run"))
    assert len(index) == 0
    forclip.index_images(as_path(photos), as_path(tmp_path / "second"), model=as_path(tmp_path / "run"))
    rebuilt = forclip.RunConfig(
        forclip.DataConfig(forclip.SourceConfig(as_path(tmp_path / "labels.json"), as_path(photos))), config.model
    )
    assert rebuilt.data.train.annotations == tmp_path / "labels.json"
    assert load_backbone(rebuilt).name == load_backbone(config).name


def test_a_toy_world(as_path: AsPath, tmp_path: Path) -> None:
    world = forclip.write_toyworld(as_path(tmp_path / "toy"), num_train=2, num_gallery=2)
    assert world.folder == tmp_path / "toy"
    assert len(list(world.images.iterdir())) == 4


def test_hints_can_be_resolved() -> None:
    for name in ("train", "evaluate", "load_config", "write_toyworld"):
        assert get_type_hints(getattr(forclip, name))["return"]
