"""A run's folder: the one place that knows where each file of a run lies."""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, astuple, fields
from pathlib import Path
from typing import Any, Literal

from paddle import nn

from paddle_resnet import distributed
from paddle_resnet.config import Config
from paddle_resnet.config.yaml_reader import read_yaml
from paddle_resnet.console import logger
from paddle_resnet.data import Normalize, Splits, open_splits
from paddle_resnet.data.datasets.open_splits import mean_and_std
from paddle_resnet.data.normalize import IMAGENET_MEAN, IMAGENET_STD
from paddle_resnet.download import ProgressFn
from paddle_resnet.errors import UsageError, command, shown
from paddle_resnet.files import (
    LARGEST_JSON,
    folder_lock,
    open_regular,
    read_json,
    recover_folder,
    remove_leftovers,
    write_json,
    write_text,
)
from paddle_resnet.models import create_configured_model, load_weights, zoo_record
from paddle_resnet.results import EpochRecord
from paddle_resnet.training.data_record import DataRecord
from paddle_resnet.training.saved_state import MetricsFile

Which = Literal["last", "best"]
OF_THE_PLACE = {"data.root", "data.verify", "data.workers", "data.memory_mb", "device"}
"""Keys of a config that say where data lie and how they are read, and nothing of what is learned or measured."""


class RunFolder:
    """The files of one run, read and written whole."""

    def __init__(self, path: Path, config: Config, splits: Splits | None = None) -> None:
        """Take the folder, its config, and where the run is being trained its images; None: those that it records."""
        self.path = path
        self.config = config
        self._splits = splits
        self._begins = splits is not None

    @classmethod
    def open(cls, path: str | Path, overrides: Iterable[str] = ()) -> RunFolder:
        """Open an existing run; `overrides` change keys of its config, here but not in its file.

        Raises:
            UsageError: the folder is missing or holds no run, or its config is damaged (an empty one is all defaults).
        """
        path = Path(path)
        if not path.is_dir():
            raise UsageError(f"{path}: no such run folder; runs lie in output/, made by {command('train')}")
        if not (path / "config.yaml").is_file():
            raise UsageError(
                f"{path}: not a run's folder, as it holds no config.yaml; runs are made by {command('train')}"
            )
        config = Config.load(path / "config.yaml", overrides)
        if missing := [key for key in ("name", "data", "model", "train") if key not in read_yaml(path / "config.yaml")]:
            raise UsageError(f"{path}/config.yaml: damaged: {missing[0]} is missing; put the run's own file back")
        return cls(path, config)

    @classmethod
    def open_trained(cls, path: str | Path, overrides: Iterable[str] = ()) -> RunFolder:
        """Open an existing run to measure or export it; `overrides` may say where its data are and how they are read.

        Raises:
            UsageError: as `open`, or another key is to be changed.
        """
        for override in overrides:
            if override.partition("=")[0] not in OF_THE_PLACE:
                raise UsageError(
                    f"-o {override}: a run is measured and exported as it was trained; expected one of "
                    f"{', '.join(sorted(OF_THE_PLACE))}"
                )
        return cls.open(path, overrides)

    @classmethod
    def create(cls, config: Config, splits: Splits | None = None) -> tuple[RunFolder, Path | None]:
        """Make the run's folder; an earlier run of that name is kept under ``<name>.<i>``, which is returned too.

        Raises:
            UsageError: the earlier run is being trained.
        """
        path = config.run_folder
        run = cls(path, config, splits)
        record = None if splits is None else DataRecord.of(config, splits, run.normalize())
        kept = _set_aside(path) if path.is_dir() else None
        config.save(run.config_path)
        if record is not None:
            record.save(run.data_path)
        return run, kept

    @property
    def config_path(self) -> Path:
        """The resolved config, which alone reproduces the run."""
        return self.path / "config.yaml"

    @property
    def data_path(self) -> Path:
        """What the run was trained on."""
        return self.path / "data.json"

    @property
    def metrics_path(self) -> Path:
        """Measured figures, a section each: train, validation, test."""
        return self.path / "metrics.json"

    @property
    def history_path(self) -> Path:
        """One row an epoch."""
        return self.path / "history.csv"

    @property
    def log_path(self) -> Path:
        """What the training said, with times."""
        return self.path / "train.log"

    @property
    def vdl_path(self) -> Path:
        """VisualDL's curves."""
        return self.path / "vdl"

    @property
    def figures_path(self) -> Path:
        """Pictures of the run."""
        return self.path / "figures"

    @property
    def inference_path(self) -> Path:
        """The exported model."""
        return self.path / "inference"

    def checkpoint_path(self, which: Which) -> Path:
        """The folder of a checkpoint: "last" or "best" (by validation)."""
        return self.path / "checkpoints" / which

    @functools.cached_property
    def recorded(self) -> DataRecord | None:
        """What the run was trained on; None: it does not say, or its training is about to begin.

        Raises:
            UsageError: ``data.json`` or, of an earlier version's run, ``state.json`` is damaged, or ``config.yaml``
                was edited and does not agree with it.
        """
        if self._begins:
            return None
        if os.path.lexists(self.data_path):
            record = DataRecord.read(self.data_path)
            record.require_config(self.config_path, self.config, self.normalize())
            return record
        state = self.checkpoint_path("last") / "state.json"
        return DataRecord.of_checkpoint(state) if os.path.lexists(state) else None

    def record_data(self) -> None:
        """Write down what the run is trained on."""
        DataRecord.of(self.config, self.splits(), self.normalize()).save(self.data_path)

    def splits(self, report: ProgressFn | None = None) -> Splits:
        """Open the run's images (once), split as they were for its training.

        Raises:
            UsageError: they are not what the run was trained on.
        """
        if self._splits is None:
            if self.recorded is None:
                logger.warning(
                    "warning: %s does not say what it was trained on: its data are taken as they are", self.path
                )
                self._splits = open_splits(self.config.data, report)
            else:
                self._splits = self.recorded.open(self.path, self.config, report)
        return self._splits

    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the scores; the images are not needed where the run records them."""
        return self.splits().classes if self.recorded is None else tuple(self.recorded.classes)

    def normalize(self) -> Normalize:
        """The layer that stands before the network: the config's mean and deviation, or those that fit its weights."""
        data, pretrained = self.config.data, self.config.model.pretrained
        mean, std = mean_and_std(data)
        if pretrained == "imagenet":
            mean, std = IMAGENET_MEAN, IMAGENET_STD
        elif pretrained == "cifar10":
            record = zoo_record(self.config.model.name)
            mean, std = record.mean, record.std
        return Normalize(data.mean or mean, data.std or std)

    def load_network(self, which: Which = "best") -> nn.Layer:
        """Build the network with a checkpoint's weights, in eval mode, on the current device.

        Raises:
            UsageError: there is no such checkpoint.
        """
        folder = self.checkpoint_path(which)
        # Who trains the run meanwhile may be just between the two renames.
        with contextlib.suppress(UsageError), folder_lock(self.path):
            recover_folder(folder)
        weights = folder / "model.pdparams"
        if self.config.train.seeds is not None:
            raise UsageError(f"{self.path}: holds a run for each of its seeds; name one: {self.path}/seed_<number>")
        if not weights.is_file():
            raise UsageError(
                f"{self.path}: no checkpoint {which!r} here; "
                + (
                    f"the run is trained, so its folder was copied in part: copy {folder} too"
                    if self.is_trained
                    else f"train it first: {command('train')} --resume {self.path}"
                )
            )
        network = create_configured_model(self.config.model, len(self.classes()))
        load_weights(network, weights, new_head=False)
        network.eval()
        return network

    @property
    def is_trained(self) -> bool:
        """Whether its training has come to its end."""
        return "train" in self.metrics()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Within the block, only this process trains the run; what a killed process left half written is removed.

        Raises:
            UsageError: another process trains it.
        """
        with folder_lock(self.path):
            for folder in (self.path, self.path / "checkpoints", self.figures_path):
                remove_leftovers(folder)
            yield

    def metrics(self) -> dict[str, Any]:
        """The figures measured so far, by section.

        Raises:
            UsageError: the file was edited or damaged.
        """
        if not os.path.lexists(self.metrics_path):
            return {}
        MetricsFile.read(self.metrics_path)
        return read_json(self.metrics_path)

    def update_metrics(self, section: str, values: dict[str, Any]) -> None:
        """Replace one section of ``metrics.json``."""
        self.write_metrics({**self.metrics(), section: values})

    def write_metrics(self, sections: dict[str, dict[str, Any]]) -> None:
        """Replace all sections of ``metrics.json``."""
        write_json(self.metrics_path, sections)

    def history(self) -> list[EpochRecord]:
        """The rows of ``history.csv``.

        Raises:
            UsageError: the file was edited or damaged.
        """
        if not os.path.lexists(self.history_path):
            return []
        names = [field.name for field in fields(EpochRecord)]
        try:
            with open_regular(self.history_path) as file:
                rows = list(csv.reader(io.StringIO(file.read(LARGEST_JSON).decode("utf-8"), newline="")))
            if rows[:1] != [names] or not all(len(row) == len(names) for row in rows):
                raise ValueError(f"expected the columns {', '.join(names)}")
            records = [EpochRecord(int(epoch), *map(float, values)) for epoch, *values in rows[1:]]
            if not all(math.isfinite(value) for record in records for value in astuple(record)):
                raise ValueError("a value is not finite")
        except (OSError, ValueError, OverflowError, csv.Error) as error:
            raise UsageError(
                f"{self.history_path}: damaged: {shown(str(error), 200)}; put the run's own back, or remove it"
            ) from error
        return records

    def write_history(self, records: list[EpochRecord]) -> None:
        """Write all rows of ``history.csv``."""
        text = io.StringIO()
        writer = csv.DictWriter(text, [field.name for field in fields(EpochRecord)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(record) for record in records)
        write_text(self.history_path, text.getvalue())


def _set_aside(path: Path) -> Path | None:
    """Rename an earlier run to the first free ``<name>.<i>``; None: its folder is empty and stays."""
    with folder_lock(path):
        remove_leftovers(path)
        if not any(path.iterdir()):
            return None
        number = 1
        while (kept := path.with_name(f"{path.name}.{number}")).exists():
            number += 1
        path.rename(kept)
        return kept


class FollowedRun(RunFolder):
    """A run's folder that is read here, and written by the first process."""

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Nothing to lock: the first process has the folder."""
        yield

    def write_history(self, records: list[EpochRecord]) -> None:
        """The first process writes it."""

    def write_metrics(self, sections: dict[str, dict[str, Any]]) -> None:
        """The first process writes them."""


def as_seen_here(run: RunFolder) -> RunFolder:
    """Return the run for this process: written by the first, read by the others."""
    return run if distributed.is_main_process() else FollowedRun(run.path, run.config)
