"""An exported model in the form that PaddleX loads, and the new folders in which other platforms get a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import paddle
import yaml
from paddle import nn
from paddle.static import InputSpec

from paddle_resnet.errors import UsageError, shown
from paddle_resnet.exporting.program import folded_network, save_layer
from paddle_resnet.files import require_name_for_folder, write_folder, write_text
from paddle_resnet.inference.inference_config import InferenceConfig

if TYPE_CHECKING:
    from paddle_resnet.training.run_folder import Run, Which

PADDLEX_NAMES = {
    **{f"resnet{layers}": f"ResNet{layers}" for layers in (18, 34, 50, 101, 152)},
    **{f"resnet{layers}_vd": f"ResNet{layers}_vd" for layers in (18, 34, 50, 101, 152, 200)},
    **{f"resnet{layers}_d": f"ResNet{layers}_vd" for layers in (50, 101, 152)},
}
"""PaddleX's names of networks. It accepts no others, and reads nothing else from them than the kind of task."""
OTHER_NETWORKS = "ResNet18"
PADDLEX_FILES = {f"inference{end}" for end in (".json", ".pdmodel", ".pdiparams", ".pdiparams.info", ".yml")}


class _PaddleXInput(nn.Layer):
    """The exported network for PaddleX's input, levels 0 to 255 as float32 ``[N, 3, S, S]``."""

    def __init__(self, network: nn.Layer) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.network(x.transpose([0, 2, 3, 1]).astype("uint8"))


def write_paddlex(run: Run, checkpoint: Which, folder: Path) -> str:
    """Write the network in the form of PaddleX 3: program, weights and an ``inference.yml`` of PaddleX's.

    The program contains the normalisation, as in every export, so PaddleX only resizes and crops.

    Returns:
        The name for ``paddlex.create_model(model_name=NAME, model_dir=FOLDER)``.

    Raises:
        UsageError: the folder has other files, or the run has no such checkpoint.
        RunFailure: the folder cannot be written.
    """
    exported = InferenceConfig.load(run.inference_path)
    name, size = PADDLEX_NAMES.get(exported.model, OTHER_NETWORKS), exported.input.image_size
    operations: list[dict[str, Any]] = [
        {"ResizeImage": {"resize_short": exported.input.resize, "backend": "pil", "interpolation": "BILINEAR"}},
        {"CropImage": {"size": size}},
        {"NormalizeImage": {"scale": 1.0, "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}},
        {"ToCHWImage": None},
    ]
    classes = list(exported.classes)
    description = {
        "Global": {"model_name": name},
        "PreProcess": {"transform_ops": operations},
        "PostProcess": {"Topk": {"topk": min(5, len(classes)), "label_list": classes}},
    }

    def write(temporary: Path) -> None:
        network = _PaddleXInput(folded_network(run, checkpoint))
        save_layer(network, temporary / "inference", InputSpec([None, 3, size, size], "float32", "x"))
        text = yaml.safe_dump(description, sort_keys=False, allow_unicode=True)
        write_text(temporary / "inference.yml", text)

    write_new_folder(folder, PADDLEX_FILES, write)
    return name


def require_new_folder(folder: Path, own: set[str]) -> None:
    """Raise `UsageError` unless a folder is new, empty, or an earlier one of the same kind, with no files but `own`."""
    require_name_for_folder(folder)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; expected a new folder")
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    if others := sorted(found - own):
        raise UsageError(f'{folder} has other files, such as "{shown(others[0], 200)}"; expected a new folder')


def write_new_folder(folder: Path, own: set[str], write: Callable[[Path], None]) -> None:
    """Write a folder that passes `require_new_folder`."""
    require_new_folder(folder, own)
    write_folder(folder.resolve(), write)
