"""A run's folder: where each file of a run lies, and how it is read and written."""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Literal, TypeGuard, get_args

from paddle import nn
from pydantic import ValidationError

from paddle_resnet import distributed, files, text_files
from paddle_resnet.config import Config
from paddle_resnet.config.yaml_reader import read_yaml
from paddle_resnet.console import logger
from paddle_resnet.data import Normalize, Splits, open_splits
from paddle_resnet.data.datasets.open_splits import mean_and_std, resize_size
from paddle_resnet.data.normalize import IMAGENET_MEAN, IMAGENET_STD
from paddle_resnet.download import ProgressFn
from paddle_resnet.errors import UsageError, command, require_one_of, shown
from paddle_resnet.models import create_configured_model, load_weights, zoo_record
from paddle_resnet.paths import expand_home, require_name_for_folder
from paddle_resnet.results import EpochRecord
from paddle_resnet.system.portable import replace
from paddle_resnet.training.data_manifest import DataManifest
from paddle_resnet.training.run_summary import run_html, run_line
from paddle_resnet.training.schemas import MetricsFile, first_error
from paddle_resnet.zoo.imagenet_weights import SHORTER_SIDE, SOURCES, is_official

Which = Literal["last", "best"]
SWEEP_TABLE = "sweep.csv"
"""The file by which a folder is known as that of `lr-find`."""
TRAINING_SECTIONS = ("validation", "environment", "train")
"""The sections of ``metrics.json`` that training itself writes."""
DATA_ACCESS_KEYS = {"data.root", "data.verify", "data.workers", "data.prefetch", "data.memory_mb", "device"}
"""Config keys that say where data lie and how they are read, not what is learned or measured."""


class Run:
    """A run: its config, and its files, each of which is written whole or not at all, by the main process alone.

    `train` and `resume` return one, and `Run.open` reads one. In a notebook it shows its config, metrics and curves.

        >>> import paddle_resnet
        >>> run = paddle_resnet.Run.open("output/quickstart")
        >>> run.config.model.name
        'resnet8'
        >>> [record.epoch for record in run.history()]
        [1]
        >>> sorted(run.metrics())
        ['environment', 'test', 'train', 'validation']
        >>> network = run.load_network("best")
        >>> import paddle
        >>> tuple(network(paddle.zeros([1, 3, 16, 16])).shape)
        (1, 10)

    Attributes:
        path: the folder; `config_path`, `metrics_path`, `history_path`, `log_path`, `vdl_path`, `figures_path` and
            `inference_path` are files and folders in it.
        config: the run's.
    """

    def __init__(self, path: Path, config: Config, *, begins: bool = False) -> None:
        """Name the folder, without writing to it.

        The images of a run that `begins` are those of the config, not those that an earlier training recorded there.
        """
        self.path = path
        self.config_path = path / "config.yaml"
        self.data_path = path / "data.json"
        self.metrics_path = path / "metrics.json"
        self.history_path = path / "history.csv"
        self.log_path = path / "train.log"
        self.vdl_path = path / "vdl"
        self.curves_paths = {"visualdl": self.vdl_path, "tensorboard": path / "tensorboard"}
        self.figures_path = path / "figures"
        self.inference_path = path / "inference"
        self.config = _with_resize_of_weights(config)
        self._begins = begins
        self._splits: Splits | None = None

    def __repr__(self) -> str:
        return f"<Run {run_line(self.path, self.config, self.history(), self.metrics())}>"

    def __fspath__(self) -> str:
        return str(self.path)

    def _repr_html_(self) -> str:
        return run_html(self.path, self.config, self.history(), self.metrics())

    @classmethod
    def of(cls, run: Run | str | Path) -> Run:
        """Return a run as it is, or open the one in a folder to measure or export it."""
        return run if isinstance(run, Run) else cls.open_trained(run)

    @classmethod
    def new(cls, config: Config) -> Run:
        """Return the run that is about to begin as `config` says; `create` makes its folder.

        Raises:
            UsageError: see `require_name_for_folder`.
        """
        require_name_for_folder(config.run_folder)
        run = cls(config.run_folder, _with_normalization_of_weights(config), begins=True)
        if run.config.data.resize != config.data.resize:
            logger.info("data.resize: %d, as with %s", run.config.data.resize, config.model.pretrained)
        return run

    @classmethod
    def open(cls, path: str | os.PathLike[str], overrides: Iterable[str] = ()) -> Run:
        """Open an existing run; `overrides` change keys of its config, here but not in its file.

        Raises:
            UsageError: the folder is missing or holds no run, or its config is damaged (an empty one is all defaults).
        """
        path = expand_home(path)
        if not path.is_dir():
            raise UsageError(f"{path}: no such run folder; runs lie in output/, made by {command('train')}")
        if not (path / "config.yaml").is_file():
            raise UsageError(f"{path}: not a run's folder: it has no config.yaml; runs are made by {command('train')}")
        if is_sweep(path):
            raise UsageError(
                f"{path}: a sweep of learning rates by {command('lr-find')}, and no run: it has {SWEEP_TABLE} and no "
                f"data.json; runs are made by {command('train')}"
            )
        config = Config.load(path / "config.yaml", overrides)
        if missing := [key for key in ("name", "data", "model", "train") if key not in read_yaml(path / "config.yaml")]:
            raise UsageError(f"{path}/config.yaml: damaged: {missing[0]} is missing; put the run's own file back")
        return cls(path, config)

    @classmethod
    def open_trained(cls, path: str | Path, overrides: Iterable[str] = ()) -> Run:
        """Open an existing run to measure or export it; `overrides` may change `DATA_ACCESS_KEYS` only.

        Raises:
            UsageError: as `open`, or another key is to be changed.
        """
        for override in overrides:
            if override.partition("=")[0] not in DATA_ACCESS_KEYS:
                raise UsageError(
                    f"-o {override}: a run is measured and exported as it was trained; expected one of "
                    f"{', '.join(sorted(DATA_ACCESS_KEYS))}"
                )
        return cls.open(path, overrides)

    @contextlib.contextmanager
    def create(self, *, with_data: bool = True) -> Iterator[None]:
        """Make the folder with its ``config.yaml`` and, if `with_data`, its ``data.json``; `lock` it in the block.

        An earlier run of that name is renamed to ``<name>.<i>``, and a log line says so.

        Raises:
            UsageError: the earlier run is being trained, the folder holds no run, or another process has begun a run of
                that name at the same time.
        """
        if not distributed.is_main_process():
            yield
            return
        manifest = DataManifest.of(self.config, self.splits(), self.normalize()) if with_data else None
        if self.path.is_dir() and (kept := _rename_earlier(self.path)) is not None:
            logger.info("the earlier run %s was kept as %s", self.path, kept)
        with files.write_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        with self.lock():
            if self.config_path.exists():  # written between the two steps above
                raise UsageError(f"{self.path}: another process has just begun a run there; choose another -o name=...")
            self.config.save(self.config_path)
            if manifest is not None:
                manifest.save(self.data_path)
            yield

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Let only this process train the run; raise `UsageError` if another does. Remove half-written files."""
        if not distributed.is_main_process():
            yield
            return
        with files.folder_lock(self.path):
            for folder in (self.path, self.path / "checkpoints", self.figures_path):
                files.remove_leftovers(folder)
            yield

    def checkpoint_path(self, which: Which) -> Path:
        """Return the folder of a checkpoint; "best" is that of the best epoch by validation."""
        return self.path / "checkpoints" / which

    @functools.cached_property
    def manifest(self) -> DataManifest | None:
        """What the run was trained on; None: the run does not say, or is about to begin.

        Raises:
            UsageError: ``data.json`` or, of an earlier version's run, ``state.json`` is damaged, or ``config.yaml``
                was edited and does not agree with it.
        """
        if self._begins:
            return None
        if os.path.lexists(self.data_path):
            manifest = DataManifest.read(self.data_path)
            manifest.require_config(self.config_path, self.config, self.normalize())
            return manifest
        state = self.checkpoint_path("last") / "state.json"
        return DataManifest.of_checkpoint(state) if os.path.lexists(state) else None

    @distributed.main_process_only
    def write_manifest(self) -> None:
        DataManifest.of(self.config, self.splits(), self.normalize()).save(self.data_path)

    def splits(self, report: ProgressFn | None = None) -> Splits:
        """Open the run's images (once), in the splits of its training; raise `UsageError` if they changed."""
        if self._splits is None:
            if self.manifest is not None:
                self._splits = self.manifest.open(self.path, self.config, report)
            else:
                if not self._begins:
                    logger.warning(
                        "warning: %s does not say what it was trained on: its data are taken as they are", self.path
                    )
                self._splits = open_splits(self.config.data, report)
        return self._splits

    def classes(self) -> tuple[str, ...]:
        """Return the class names in the order of the scores; a run with a manifest needs no images for that."""
        return self.splits().classes if self.manifest is None else tuple(self.manifest.classes)

    def normalize(self) -> Normalize:
        """Return the layer before the network: with the config's mean and deviation, or those of its weights."""
        data, pretrained = self.config.data, self.config.model.pretrained
        mean, std = mean_and_std(data)
        if is_official(pretrained):
            mean, std = IMAGENET_MEAN, IMAGENET_STD
        elif pretrained == "cifar10":
            record = zoo_record(self.config.model.name)
            mean, std = record.mean, record.std
        return Normalize(data.mean or mean, data.std or std)

    def load_network(self, which: Which = "best") -> nn.Layer:
        """Build the network with a checkpoint's weights, in eval mode, on the current device; rank 0 reads them.

        Raises:
            UsageError: there is no such checkpoint.
        """
        if self.config.train.seeds is not None:
            raise UsageError(f"{self.path}: holds a run for each of its seeds; name one: {self.path}/seed_<number>")
        weights = self._weights_path(which) if distributed.is_main_process() else None
        network = create_configured_model(self.config.model, len(self.classes()))
        if weights is not None:
            load_weights(network, weights, new_head=False)
        distributed.broadcast(list(network.state_dict().values()))
        network.eval()
        return network

    def _weights_path(self, which: Which) -> Path:
        require_one_of("checkpoint", which, get_args(Which))
        folder = self.checkpoint_path(which)
        # A process that trains the run may be between the two renames; then the folder is not ours to recover.
        with contextlib.suppress(UsageError), files.folder_lock(self.path):
            files.recover_folder(folder)
        weights = folder / "model.pdparams"
        if not weights.is_file():
            raise UsageError(
                f"{self.path}: no checkpoint {which!r} here; "
                + (
                    f"the run is trained, so its folder was copied in part: copy {folder} too"
                    if self.is_trained
                    else f"train it first: {command('train', '--resume', self.path)}"
                )
            )
        if not self.is_trained:
            resume = command("train", "--resume", self.path)
            logger.warning("warning: %s: its training has not finished; %s goes on with it", self.path, resume)
        return weights

    @property
    def is_trained(self) -> bool:
        return "train" in self.metrics()

    def metrics(self) -> dict[str, Any]:
        """Read ``metrics.json`` by section, if it exists; raise `UsageError` if it is damaged."""
        if not os.path.lexists(self.metrics_path):
            return {}
        MetricsFile.read(self.metrics_path)
        return text_files.read_json(self.metrics_path)

    @distributed.main_process_only
    def update_metrics(self, section: str, values: dict[str, Any]) -> None:
        with self.metrics_lock():
            text_files.write_json(self.metrics_path, {**self.metrics(), section: values})

    @distributed.main_process_only
    def write_metrics(self, sections: dict[str, dict[str, Any]]) -> None:
        with self.metrics_lock():
            text_files.write_json(self.metrics_path, sections)

    @distributed.main_process_only
    def save_config(self, earlier: Config) -> None:
        """Save the config if it is not the `earlier` one of this run, and drop the metrics that no longer fit it.

        With another `evaluation.flip` or `evaluation.shift` these are what was measured of the network. An exported
        model has its own.
        """
        if (now := self.config.evaluation).flip != earlier.evaluation.flip or now.shift != earlier.evaluation.shift:
            with self.metrics_lock():
                metrics = self.metrics()
                measured = [name for name in metrics if not (name in TRAINING_SECTIONS or name.startswith("exported_"))]
                if measured:
                    kept = {name: section for name, section in metrics.items() if name not in measured}
                    text_files.write_json(self.metrics_path, kept)
                    logger.info(
                        "%s: evaluation.flip or shift changed: %s, measured before, are no longer in metrics.json",
                        *(self.path, ", ".join(measured)),
                    )
        if self.config != earlier:
            self.config.save(self.config_path)

    def metrics_lock(self) -> contextlib.AbstractContextManager[None]:
        """Let only this process change ``metrics.json``, also while another one trains the run; wait for it.

        What is locked is ``config.yaml``: ``metrics.json`` may not exist yet, and each write makes it another file.
        """
        return files.folder_lock(self.config_path, wait=True)

    def history(self) -> list[EpochRecord]:
        """Read ``history.csv``, if it exists; raise `UsageError` if it is damaged."""
        if not os.path.lexists(self.history_path):
            return []
        names = [field.name for field in fields(EpochRecord)]
        remedy = "put the run's own back, or remove it"
        try:
            with files.open_regular(self.history_path) as file:
                rows = list(csv.reader(io.StringIO(file.read(text_files.LARGEST_JSON).decode("utf-8"), newline="")))
            columns = len(rows[0]) if rows else 0  # earlier versions had no `threads` or macro F1
            if rows[:1] != [names[:columns]] or columns < 8 or not all(len(row) == columns for row in rows):
                raise ValueError(f"expected the columns {', '.join(names)}")
            records = []
            for row in rows[1:]:
                named: dict[str, Any] = {name: float(cell) for name, cell in zip(names, row, strict=False) if cell}
                for name in {"epoch", "threads"} & named.keys():
                    named[name] = int(named[name])
                records.append(EpochRecord(**named))
        except ValidationError as error:
            raise UsageError(f"{self.history_path}: damaged: {first_error(error)}; {remedy}") from None
        except (OSError, ValueError, OverflowError, csv.Error) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise UsageError(f"{self.history_path}: damaged: {shown(reason, 200)}; {remedy}") from error
        return records

    @distributed.main_process_only
    def write_history(self, records: list[EpochRecord]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, [field.name for field in fields(EpochRecord)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(record) for record in records)
        text_files.write_text(self.history_path, text.getvalue())


def is_sweep(folder: Path) -> bool:
    """Return whether `lr-find` made the folder, and no run was trained in it."""
    return (folder / SWEEP_TABLE).is_file() and not (folder / "data.json").exists()


def names_a_file(pretrained: str | None) -> TypeGuard[str]:
    """Return whether ``model.pretrained`` names a file or a run, not weights of the package or official ones."""
    return not (pretrained is None or is_official(pretrained) or pretrained == "cifar10")


def run_of_weights(pretrained: str | None) -> Run | None:
    """Return the run whose folder ``model.pretrained`` names, if it names one."""
    if names_a_file(pretrained) and (Path(pretrained) / "config.yaml").is_file():
        return Run.open(pretrained)
    return None


def _with_normalization_of_weights(config: Config) -> Config:
    """Set ``data.mean`` and ``data.std`` to those that the weights of another run were trained with, unless set."""
    earlier, data = run_of_weights(config.model.pretrained), config.data
    if earlier is None or data.mean is not None or data.std is not None:
        return config
    mean, std = earlier.normalize().mean, earlier.normalize().std
    logger.info("data.mean and data.std: %s and %s, as of %s", list(mean), list(std), earlier.path)
    return config.model_copy(update={"data": data.model_copy(update={"mean": mean, "std": std})})


def _with_resize_of_weights(config: Config) -> Config:
    """Set ``data.resize`` to the share of the crop that official weights were measured with, unless it is set."""
    data, model = config.data, config.model
    file = SOURCES.get(model.pretrained or "", {}).get(model.name)
    crops = data.resize is None and resize_size(data) > data.image_size
    if file is None or file.shorter_side == SHORTER_SIDE or not crops:
        return config
    resize = round(data.image_size * file.shorter_side / 224)
    return config.model_copy(update={"data": data.model_copy(update={"resize": resize})})


def _rename_earlier(path: Path) -> Path | None:
    """Rename an earlier run to the first free ``<name>.<i>``; return None for an empty folder, which stays.

    Raises:
        UsageError: it is no run, such as a folder of pictures; or another process trains the run.
    """
    with files.folder_lock(path):
        if not (path / "config.yaml").is_file():
            # A process that was killed as it wrote config.yaml leaves no more than its temporary.
            if any(not each.name.startswith(".config.yaml.") for each in path.iterdir()):
                raise UsageError(f"{path}: exists and is no run (it has no config.yaml); choose another -o name=...")
            return None
        files.remove_leftovers(path)
        number = 1
        while (kept := path.with_name(f"{path.name}.{number}")).exists():
            number += 1
        replace(path, kept)
        return kept
