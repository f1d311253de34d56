"""`inference.yml`: the description of an exported model. It is checked before Paddle loads a file."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, PrivateAttr, ValidationError, model_validator

from paddle_resnet.config.schema import Group
from paddle_resnet.config.value_types import Integer, PerChannel, Share
from paddle_resnet.config.yaml_reader import read_yaml
from paddle_resnet.errors import UsageError, command, shown
from paddle_resnet.files import sha256_of
from paddle_resnet.inference.options import BackendName, Precision
from paddle_resnet.paths import expand_home
from paddle_resnet.text_files import write_text

FILE_NAME = "inference.yml"
FORMAT: Literal[2] = 2  # format 1 had a single model and MD5 sums
Positive = Annotated[Integer, Field(gt=0)]


class ModelFile(Group):
    """A file beside `inference.yml`: its name without a folder, and its SHA-256 to detect damaged copies."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

    @classmethod
    def of(cls, path: Path) -> ModelFile:
        return cls(name=path.name, sha256=sha256_of(path))


class ModelFiles(Group):
    """The files that the backends load: Paddle's program and parameters, and ONNX in fp32 and int8 where exported."""

    program: ModelFile
    parameters: ModelFile
    onnx: ModelFile | None = None
    onnx_int8: ModelFile | None = None

    def onnx_of(self, precision: Precision) -> ModelFile | None:
        """Return the ONNX file that has the weights of a precision, if it was exported."""
        return self.onnx_int8 if precision == "int8" else self.onnx


class InputConfig(Group):
    """The model's input: raw RGB pixels of pictures whose shorter side was scaled to `resize`, then cropped."""

    image_size: Annotated[Integer, Field(gt=0, le=1024)]
    resize: Annotated[Integer, Field(gt=0, le=2048)]
    crop: Literal["center"] = "center"
    channels: Literal[3] = 3
    layout: Literal["NHWC"] = "NHWC"
    dtype: Literal["uint8"] = "uint8"
    batch: Positive | None = None  # a fixed batch size; null: any

    @model_validator(mode="after")
    def _crop_lies_inside(self) -> InputConfig:
        if self.image_size > self.resize:
            raise ValueError(f"image_size ({self.image_size}) must be at most resize ({self.resize})")
        return self


class NormalizationConfig(Group):
    """For information, as the graph contains it: (pixel / 255 - mean) / std."""

    mean: PerChannel
    std: PerChannel


class TestMetrics(Group):
    """Top-1 as a fraction on the test split, and the number of images."""

    __test__ = False  # not a test case of pytest

    top1: Share
    images: Positive


class PrecisionMetrics(TestMetrics):
    """Also the share of images for which the exported model and the trained network predict the same class."""

    agreement: Share


class InferenceConfig(Group):
    """The whole of `inference.yml`."""

    format: Literal[2] = FORMAT
    model: str
    classes: Annotated[tuple[str, ...], Field(min_length=1)]
    input: InputConfig
    output: Literal["probabilities"] = "probabilities"
    flip: bool = False  # for information: the graph gives the mean over a picture and its mirror image
    shift: int = 0  # likewise, the mean over copies moved by so many pixels too (`evaluation.scorer.Views`)
    normalization: NormalizationConfig
    versions: dict[str, str]  # of the packages that made the files
    files: ModelFiles
    test: TestMetrics | None = None  # the trained network's metrics
    threshold: Share | None = None  # a prediction of a lower probability is `predictor.UNKNOWN`; null: none is
    precisions: dict[Precision, dict[BackendName, PrecisionMetrics | None]]  # what was exported; null: not measured
    exported_at: str
    _folder: Path = PrivateAttr(Path())

    @property
    def folder(self) -> Path:
        """The folder that it was loaded from, with the files in `files`."""
        return self._folder

    def digest(self) -> str:
        """Return a SHA-256 over all keys. The files' digests are among them, so it identifies the whole model."""
        return hashlib.sha256(self.model_dump_json().encode("utf-8")).hexdigest()

    def save(self, folder: Path) -> None:
        write_text(
            folder / FILE_NAME, yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        )

    @classmethod
    def load(cls, model_dir: str | os.PathLike[str]) -> InferenceConfig:
        """Read the `inference.yml` of a folder or run; one missing, malformed or of another format is a UsageError."""
        folder = find_model(model_dir)
        path = folder / FILE_NAME
        remedy = f"export a trained run with {command('export')} RUN"
        # These values are texts even where they look like numbers.
        values = read_yaml(path, lambda key: key.partition(".")[0] in ("model", "classes", "versions"), remedy)
        version = values.get("format")
        if isinstance(version, int) and version > FORMAT:
            raise UsageError(
                f"{path}: format {shown(version, 40)} is newer than this program's ({FORMAT}); update paddle_resnet"
            )
        if version is None and "Global" in values and "PreProcess" in values:
            raise UsageError(
                f"{path}: a model of PaddleX or PaddleClas, with which paddlex.create_model(model_name=..., "
                "model_dir=...) predicts; this program takes its own exports only"
            )
        if version != FORMAT:
            raise UsageError(f"{path}: format {shown(repr(version))}, expected {FORMAT}; {remedy}")
        try:
            config = cls.model_validate(values)
        except ValidationError as error:
            complaint = error.errors()[0]
            key = shown(".".join(map(str, complaint["loc"])))
            raise UsageError(f"{path}: {key}: {shown(complaint['msg'])}; {remedy}") from None
        config._folder = folder
        return config


def repair_advice() -> str:
    """Return what an error says about a damaged export."""
    return f"copy the whole folder again, or export again with {command('export')} RUN"


def find_model(folder: str | os.PathLike[str]) -> Path:
    """Return the folder with `inference.yml`: `folder`, or the `inference/` in it; raise a UsageError without one."""
    folder = expand_home(folder)
    for candidate in (folder, folder / "inference"):
        if (candidate / FILE_NAME).is_file():
            return candidate
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "no such folder"
        raise UsageError(f"{folder}: {found}; expected the folder of an exported model or a run's folder")
    raise UsageError(
        f"{folder}: neither it nor its inference/ holds {FILE_NAME}; export a trained run with {command('export')} RUN"
    )


def check_files(config: InferenceConfig, *files: ModelFile) -> None:
    """Raise a UsageError if a file is missing or damaged, which would crash Paddle."""
    for file in files:
        path = config.folder / file.name
        if not path.is_file():
            raise UsageError(f"{path}: the file is missing; {repair_advice()}")
        if sha256_of(path) != file.sha256:
            raise _damaged(path)


def onnx_file(config: InferenceConfig, precision: Precision) -> ModelFile:
    """Return the ONNX file of a precision; raise a UsageError if it was not exported."""
    file = config.files.onnx_of(precision)
    if file is None:
        option = "--precision int8" if precision == "int8" else "--onnx"
        name = "int8" if precision == "int8" else "fp32"
        raise UsageError(f"{config.folder}: holds no ONNX model of {name}; export the run again with {option}")
    return file


def read_checked(config: InferenceConfig, file: ModelFile) -> bytes:
    """Read a whole file, so that only checked bytes are loaded; raise a UsageError if it is missing or damaged."""
    path = config.folder / file.name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error}); {repair_advice()}") from None
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise _damaged(path)
    return data


def _damaged(path: Path) -> UsageError:
    return UsageError(f"{path}: damaged, as its SHA-256 is not the one in {FILE_NAME}; {repair_advice()}")


def check_program(config: InferenceConfig, running_paddle: str) -> None:
    """Raise a UsageError if this Paddle would crash on the program: 3 reads the .pdmodel of 2, but 2 no .json."""
    if config.files.program.name.endswith(".json") and running_paddle.startswith(("1.", "2.")):
        raise UsageError(
            f"{config.folder}: exported by Paddle {config.versions.get('paddle')}, and a .json program needs Paddle 3; "
            f"this is Paddle {running_paddle}: install paddlepaddle>=3, or export the run again under this version"
        )
