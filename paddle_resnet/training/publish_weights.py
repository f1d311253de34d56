"""Puts the weights of a finished run into the package, for ``model.pretrained: cifar10``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from paddle_resnet.errors import UsageError, command
from paddle_resnet.files import sha256_of
from paddle_resnet.models import ZooRecord, create_model, load_weights, write_state_dict
from paddle_resnet.system import machine
from paddle_resnet.text_files import write_text
from paddle_resnet.training.run_folder import Run
from paddle_resnet.zoo import cifar10_weights

_RECORDED = {
    "environment": ("process", "paddle"),
    "train": ("epochs", "seconds"),
    "validation": ("top1",),
    "test": ("top1", "images"),
}
"""What a record takes from metrics.json."""


def publish_weights(run: Run, data: str) -> ZooRecord:
    """Write the best checkpoint of a CIFAR-10 run and its record to `zoo.FOLDER`, replacing the network's earlier ones.

    `data` is in words the edition of the images, which the config does not tell. Returns the record.

    Raises:
        UsageError: the run is not finished, trained from scratch and measured on the whole test split, or its network
            is not what `create_model` makes from its name alone.
        RunFailure: the files cannot be written.
    """
    config, metrics = run.config, run.metrics()
    _require_publishable(run, metrics)
    name = config.model.name
    network = create_model(name)
    load_weights(network, run.checkpoint_path("best") / "model.pdparams", new_head=False)
    # Before anything is written: an early run does not record its classes, and its images may be missing.
    classes, normalize = run.classes(), run.normalize()
    weights = cifar10_weights.weights_path(name)
    environment, without_root = metrics["environment"], config.data.model_copy(update={"root": None})
    record = ZooRecord(
        model=name,
        data=data,
        classes=classes,
        mean=normalize.mean,
        std=normalize.std,
        test_top1=metrics["test"]["top1"],
        test_images=metrics["test"]["images"],
        flip=config.evaluation.flip,
        validation_top1=metrics["validation"]["top1"],
        seed=config.train.seed,
        epochs=metrics["train"]["epochs"],
        seconds=metrics["train"]["seconds"],
        # Early runs do not record the processor: they have to be published where they were trained.
        machine=f"{environment.get('processor', machine.processor().model)}, {environment['process']}",
        paddle=environment["paddle"],
        sha256="",
        recipe=config.model_copy(update={"data": without_root, "output": Path("output")}).model_dump(mode="json"),
    )
    write_state_dict(weights, {key: tensor.numpy() for key, tensor in network.state_dict().items()})
    record = record.model_copy(update={"sha256": sha256_of(weights)})
    write_text(cifar10_weights.record_path(name), record.model_dump_json(indent=2) + "\n")
    return record


def _require_publishable(run: Run, metrics: dict[str, Any]) -> None:
    source, model = run.config.data.source, run.config.model
    if source != "cifar10":
        raise UsageError(f"{run.path}: data.source is {source}; the package holds weights of cifar10 alone")
    if limit := run.config.data.limit:
        raise UsageError(f"{run.path}: data.limit is {limit}; what is published was measured on the whole test split")
    if shift := run.config.evaluation.shift:
        raise UsageError(
            f"{run.path}: evaluation.shift is {shift}, and a record has no place for it: measure the run again with "
            f"evaluation.shift: 0 in its config.yaml: {command('eval', run.path)}"
        )
    if model.pretrained is not None:
        raise UsageError(f"{run.path}: began with {model.pretrained}; what is published was trained from scratch")
    if model.stem is not None:
        raise UsageError(f"{run.path}: model.stem is {model.stem}; a name in the package means the design's own")
    if not run.is_trained:
        raise UsageError(f"{run.path}: is not finished; go on with {command('train', '--resume', run.path)}")
    if metrics.get("test", {}).get("checkpoint") != "best":
        raise UsageError(f"{run.path}: its best checkpoint is not measured yet: {command('eval', run.path)}")
    for section, keys in _RECORDED.items():
        if missing := [key for key in keys if key not in metrics.get(section, {})]:
            raise UsageError(
                f"{run.metrics_path}: has no {section}.{missing[0]}, which the record needs; train the run again"
            )
