"""The demo's models: trained in seconds on the data sets that scikit-learn carries, exported to ONNX, cached.

The requests are batches of held-out rows, so that every answer can be checked twice: against the true labels
(accuracy), and against what the same ONNX files answer without a server in between.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

VARIANTS = 24
"""Different requests for each pipeline, sent in turn."""


class Recipe(Protocol):
    """How one pipeline's models are made. Being a dataclass, its fields are part of the cache's key."""

    @property
    def title(self) -> str:
        """What it is, for people."""
        ...

    @property
    def rows(self) -> int:
        """Rows that one request scores."""
        ...

    def train(self) -> tuple[Mapping[str, Any], Floats, Labels, float]:
        """ONNX models by file name, in order; held-out rows and labels; scikit-learn's own accuracy on those."""
        ...


@dataclass(frozen=True, slots=True)
class Chain:
    """Scaler, principal components and a wide multilayer perceptron on handwritten digits: three ONNX files."""

    title: str = "digits: scaler, PCA, wide MLP"
    rows: int = 128
    components: int = 40
    hidden: tuple[int, ...] = (2048, 1024)
    epochs: int = 8

    def train(self) -> tuple[Mapping[str, Any], Floats, Labels, float]:
        """See Recipe."""
        from sklearn.datasets import load_digits
        from sklearn.decomposition import PCA
        from sklearn.neural_network import MLPClassifier
        from sklearn.preprocessing import StandardScaler

        train, held_out, labels, truth = _split(load_digits)
        scaler = StandardScaler().fit(train)
        pca = PCA(self.components, random_state=0).fit(scaler.transform(train))
        reduced = pca.transform(scaler.transform(train)).astype(np.float32)
        mlp = MLPClassifier(self.hidden, max_iter=self.epochs, random_state=0).fit(reduced, labels)
        score = mlp.score(pca.transform(scaler.transform(held_out)), truth)
        models = {
            "scaler": _export(scaler, train),
            "pca": _export(pca, train),
            "mlp": _export(mlp, reduced),
        }
        return models, held_out, truth, float(score)


@dataclass(frozen=True, slots=True)
class Forest:
    """A random forest on the breast cancer data."""

    title: str = "breast cancer: random forest"
    rows: int = 256
    trees: int = 1000

    def train(self) -> tuple[Mapping[str, Any], Floats, Labels, float]:
        """See Recipe."""
        from sklearn.datasets import load_breast_cancer
        from sklearn.ensemble import RandomForestClassifier

        train, held_out, labels, truth = _split(load_breast_cancer)
        forest = RandomForestClassifier(self.trees, random_state=0).fit(train, labels)
        return {"forest": _export(forest, train)}, held_out, truth, float(forest.score(held_out, truth))


@dataclass(frozen=True, slots=True)
class VectorMachine:
    """A support vector machine with an RBF kernel on handwritten digits, trained on each one and its four neighbours.

    Shifting the training images by a pixel ("virtual support vectors") makes it both better and heavier.
    """

    title: str = "digits: RBF support vectors"
    rows: int = 48
    penalty: float = 10.0

    def train(self) -> tuple[Mapping[str, Any], Floats, Labels, float]:
        """See Recipe."""
        from sklearn.datasets import load_digits
        from sklearn.svm import SVC

        train, held_out, labels, truth = _split(load_digits)
        images = train.reshape(-1, 8, 8)
        shifts = [images, *(np.roll(images, step, axis) for step in (-1, 1) for axis in (1, 2))]
        many = np.concatenate(shifts).reshape(-1, 64)
        machine = SVC(C=self.penalty).fit(many, np.tile(labels, len(shifts)))
        return {"svm": _export(machine, many)}, held_out, truth, float(machine.score(held_out, truth))


RECIPES: Mapping[str, Recipe] = {"americas": Chain(), "emea": Forest(), "apac": VectorMachine()}


@dataclass(frozen=True, slots=True)
class Model:
    """One pipeline's files and the requests that it is sent."""

    name: str
    title: str
    files: tuple[Path, ...]
    """ONNX models in the order in which they run."""
    inputs: Floats
    """Shape (variants, rows, features)."""
    labels: Labels
    """The truth; shape (variants, rows)."""
    expected: Labels
    """What a direct run of the files answers; shape (variants, rows)."""
    accuracy: float
    """scikit-learn's own, on all held-out rows."""

    @property
    def input_name(self) -> str:
        """The first model's input."""
        return str(_session(self.files[0]).get_inputs()[0].name)


def prepare(
    cache: Path, recipes: Mapping[str, Recipe] = RECIPES, progress: Callable[[str], None] = lambda _: None
) -> list[Model]:
    """The models, from `cache` where they are there and whole, else trained and stored there."""
    return [_load(_cached(cache, name, recipe, progress), name, recipe) for name, recipe in recipes.items()]


@dataclass(frozen=True, slots=True)
class Direct:
    """A chain of ONNX files, run here on one thread: no server, no queue."""

    sessions: tuple[onnxruntime.InferenceSession, ...]

    def __call__(self, rows: Floats) -> Labels:
        """The labels of `rows`, shape (rows, features)."""
        values: Any = rows
        for session in self.sessions:
            values = session.run([session.get_outputs()[0].name], {session.get_inputs()[0].name: values})[0]
        return np.asarray(values, dtype=np.int64)


def direct(files: Sequence[Path]) -> Direct:
    """The files, loaded."""
    return Direct(tuple(_session(file) for file in files))


def _cached(cache: Path, name: str, recipe: Recipe, progress: Callable[[str], None]) -> Path:
    versions = {package: version(package) for package in ("numpy", "onnx", "scikit-learn", "skl2onnx")}
    key = hashlib.sha256(json.dumps([repr(recipe), VARIANTS, versions]).encode()).hexdigest()[:16]
    folder = cache / "models" / f"{name}-{key}"
    if not _whole(folder):
        progress(f"training {name} ({recipe.title})")
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Complete or absent: an interrupted training never leaves half a model under the final name.
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            _build(Path(scratch) / "new", recipe)
            (Path(scratch) / "new").replace(folder)
    return folder


def _build(folder: Path, recipe: Recipe) -> None:
    folder.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the perceptron stops after a few epochs, which is intended
        models, held_out, truth, accuracy = recipe.train()
    for name, model in models.items():
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString())
    chosen = np.random.default_rng(0).integers(len(held_out), size=(VARIANTS, recipe.rows))
    np.save(folder / "inputs.npy", held_out[chosen])
    np.save(folder / "labels.npy", truth[chosen])
    sums = {file.name: _sum(file) for file in sorted(folder.iterdir())}
    manifest = {"recipe": asdict(recipe), "steps": list(models), "accuracy": accuracy, "sha256": sums}  # type: ignore[call-overload]  # a Recipe is a dataclass
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2))


def _load(folder: Path, name: str, recipe: Recipe) -> Model:
    manifest = json.loads((folder / "manifest.json").read_text())
    files = tuple(folder / f"{step}.onnx" for step in manifest["steps"])
    inputs: Floats = np.load(folder / "inputs.npy")
    labels: Labels = np.load(folder / "labels.npy")
    run = direct(files)
    expected = np.stack([run(rows) for rows in inputs])
    return Model(name, recipe.title, files, inputs, labels, expected, manifest["accuracy"])


def _whole(folder: Path) -> bool:
    try:
        sums = json.loads((folder / "manifest.json").read_text())["sha256"]
        return all(_sum(folder / name) == wanted for name, wanted in sums.items())
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _sum(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _session(file: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def _split(load: Callable[..., Any]) -> tuple[Floats, Floats, Labels, Labels]:
    from sklearn.model_selection import train_test_split

    rows, labels = load(return_X_y=True)
    train, held_out, known, truth = train_test_split(
        rows.astype(np.float32), labels.astype(np.int64), test_size=0.4, random_state=0, stratify=labels
    )
    return train, held_out, known, truth


def _export(model: Any, rows: Floats) -> Any:
    from skl2onnx import to_onnx
    from sklearn.base import is_classifier

    # Plain tensors; the default is a list of dictionaries, which no V2 protocol can carry.
    return to_onnx(model, rows[:1], options={id(model): {"zipmap": False}} if is_classifier(model) else None)
