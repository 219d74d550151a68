# SPDX-License-Identifier: Apache-2.0
"""What all experiments share: stages, records, command line.

An experiment trains each of its methods with each seed (stage ``train``), then
tests, converts and times what was trained (stage ``measure``, and any stages of its
own), then prints one table. Finished runs are recorded at once and not repeated.
"""

from __future__ import annotations

import abc
import argparse
import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tfrewprune.converter.files import replacing
from tfrewprune.experiments import measuring, runs, tables, training


class Experiment(abc.ABC):
    """A table: methods x seeds on one model and data set.

    Attributes:
        stages: What is done with each run; the method ``_STAGE`` does it.
        scored: What :meth:`scores` returns, in the order of the table.
        published: Figures of others to show beside ours.

    Args:
        log: Records of finished runs.
        work: Folder of the trained models.
        plan: Hyper-parameters, a frozen dataclass with at least ``images``,
            ``evaluation_images`` (None for all) and ``seconds`` (of a timing).
        threads: Threads of the training.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    methods: ClassVar[tuple[str, ...]]
    full_plan: ClassVar[Any]
    quick_plan: ClassVar[Any]
    stages: ClassVar[tuple[str, ...]] = ("train", "measure")
    scored: ClassVar[tuple[str, ...]] = ("accuracy",)
    published: ClassVar[tables.Summary] = {}

    def __init__(self, log: runs.RunLog, work: Path, plan: Any, threads: int = 1):
        self.log = log
        self.work = Path(work)
        self.plan = plan
        self.threads = threads

    @abc.abstractmethod
    def load_data(self) -> Any:
        """Returns the whole data set: :class:`ImageData` or the experiment's own."""

    @abc.abstractmethod
    def train(self, method: str, seed: int, data: Any) -> tuple[Any, dict]:
        """Returns the plain trained model of a method and details for the record."""

    @abc.abstractmethod
    def goals(self, summary: tables.Summary) -> list[tuple[str, bool]]:
        """Returns each goal and whether the means over the seeds reach it."""

    def export(self, method: str, seed: int, model) -> Path:
        """Returns the path of ``model`` as a standard ``.tflite``, made if needed."""
        path = self.path(method, seed, ".tflite")
        measuring.export(model, path)
        return path

    def scores(self, model, data, part: str) -> dict[str, float]:
        """Returns how good a model is at the ``validation`` or ``test`` part."""
        x, y = getattr(data, f"x_{part}"), getattr(data, f"y_{part}")
        return {"accuracy": training.accuracy(model, x, y)}

    def count(self, model) -> dict[str, Any]:
        """Returns the weights that the rates of the table are about."""
        return count_weights(model)

    def deployed(self, method: str, seed: int, model, data) -> dict[str, Any]:
        """Returns what ``model`` is worth once converted."""
        return measuring.deployment(
            self.export(method, seed, model),
            self.path(method, seed, ".packed.tflite"),
            data.x_test,
            data.y_test,
            min_seconds=self.plan.seconds,
        )

    def trained(self, method: str, seed: int):
        """Returns the model of a finished training.

        Raises:
            FileNotFoundError: there is none.
        """
        import keras

        path = self.path(method, seed, ".keras")
        if not path.exists():
            raise FileNotFoundError(
                f"{path} is not there: run stage 'train' of {method}, seed {seed},"
                " with the same --work folder first."
            )
        return keras.models.load_model(path, compile=False)

    def kept(self, name: str, seed: int, make: Callable[[], Any]):
        """Returns a model that runs of a seed share, such as the one they start from.

        Made on first use, then read from the work folder; either way Keras' random
        numbers begin at the seed.

        Args:
            name: What its file is called.
            seed: The seed.
            make: Makes it.
        """
        import keras

        keras.utils.set_random_seed(seed)
        path = self.path(name, seed, ".keras")
        if path.exists():
            return keras.models.load_model(path, compile=False)
        model = make()
        with replacing(path) as new:
            model.save(new)
        return model

    def path(self, method: str, seed: int, suffix: str) -> Path:
        """Where a file of one run lies."""
        return self.work / f"{method}-seed{seed}{suffix}"

    def data(self) -> Any:
        """Returns as much of the data as the plan asks for."""
        plan = self.plan
        return self.load_data().head(
            plan.images, plan.evaluation_images, plan.evaluation_images
        )

    def run(self, stage: str, method: str, seed: int, data: Any) -> None:
        """Runs and records one stage of one run, unless it is recorded.

        Raises:
            ValueError: ``stage`` is none of :attr:`stages`.
            FileNotFoundError: ``measure`` before ``train``.
        """
        if stage not in self.stages:
            known = " or ".join(map(repr, self.stages))
            raise ValueError(f"Expected stage {known}, got {stage!r}.")
        if self.log.find(stage=stage, method=method, seed=seed):
            return
        started = time.time()
        record = getattr(self, f"_{stage}")(method, seed, data)
        self.log.append(
            {
                "experiment": self.name,
                "stage": stage,
                "method": method,
                "seed": seed,
                **record,
                "plan": dataclasses.asdict(self.plan),
                "seconds": round(time.time() - started, 1),
                **runs.environment(),
            }
        )

    def _train(self, method: str, seed: int, data: Any) -> dict[str, Any]:
        model, details = self.train(method, seed, data)
        model.save(self.path(method, seed, ".keras"))
        scores = self.scores(model, data, "validation")
        return {**_named("validation", scores), **self.count(model), **details}

    def _measure(self, method: str, seed: int, data: Any) -> dict[str, Any]:
        model = self.trained(method, seed)
        return {
            **_named("test", self.scores(model, data, "test")),
            **self.deployed(method, seed, model, data),
        }

    @classmethod
    def main(cls, arguments: Sequence[str] | None = None) -> None:
        """Command line; see ``--help``."""
        options = cls._parse(arguments)
        name = f"{cls.name}-quick" if options.quick else cls.name
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        work = options.work or Path(cache) / "tfrewprune" / name
        kept = work / "results.jsonl" if options.quick else None
        experiment = cls(
            runs.RunLog(options.results or kept or runs.RESULTS / f"{name}.jsonl"),
            work,
            cls.quick_plan if options.quick else cls.full_plan,
            options.threads,
        )
        stages = [stage for stage in options.stages if stage != "table"]
        if stages:
            work.mkdir(parents=True, exist_ok=True)
            training.limit_threads(options.threads)
            data = experiment.data()
        for stage in stages:
            for seed in options.seeds[:1] if options.quick else options.seeds:
                for method in options.methods:
                    print(f"{cls.name}: {stage} {method}, seed {seed}", flush=True)
                    experiment.run(stage, method, seed, data)
        experiment.show()

    def show(self) -> None:
        """Prints the table of the finished runs, and writes its figures as JSON."""
        tables.show(
            self.title,
            self.methods,
            self.log,
            self.goals,
            scored=self.scored,
            published=self.published,
        )

    @classmethod
    def _parse(cls, arguments: Sequence[str] | None) -> argparse.Namespace:
        parser = argparse.ArgumentParser(
            prog=f"python -m tfrewprune.experiments.{cls.name}",
            description=f"{cls.title}. Finished runs are not repeated.",
        )
        parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
        parser.add_argument(
            "--methods", nargs="+", choices=cls.methods, default=list(cls.methods)
        )
        parser.add_argument(
            "--stages",
            nargs="+",
            choices=[*cls.stages, "table"],
            default=[*cls.stages, "table"],
            help="what to do: train, measure what is trained, print the table (always)",
        )
        parser.add_argument(
            "--quick",
            action="store_true",
            help="one seed, few images and epochs, results in the work folder",
        )
        parser.add_argument("--threads", type=int, default=1, help="training threads")
        parser.add_argument("--work", type=Path, help="folder of the trained models")
        parser.add_argument("--results", type=Path, help="JSON-lines file of records")
        return parser.parse_args(arguments)


def _named(part: str, scores: dict[str, float]) -> dict[str, float]:
    return {f"{part}_{name}": score for name, score in scores.items()}


def count_weights(model) -> dict[str, Any]:
    """Returns the weights of all layers with a ``kernel``; biases are not counted.

    ``weights``, ``kept`` (not zero), ``rate`` = weights / kept, and the kept ones
    layer by layer.
    """
    import keras

    kernels = {
        layer.name: keras.ops.convert_to_numpy(layer.kernel)
        for layer in model.layers
        if hasattr(layer, "kernel")
    }
    return counted(kernels)


def counted(kernels: dict[str, np.ndarray]) -> dict[str, Any]:
    """Returns what :func:`count_weights` does, of kernels by name."""
    kept = {name: int(np.count_nonzero(kernel)) for name, kernel in kernels.items()}
    total = sum(kernel.size for kernel in kernels.values())
    return {
        "weights": total,
        "kept": sum(kept.values()),
        "kept_in_layer": kept,
        "rate": total / max(1, sum(kept.values())),
    }
