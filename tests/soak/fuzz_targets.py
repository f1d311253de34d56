"""What the fuzzer feeds: each reader of files that others made, with small seeds that the code itself writes."""

from __future__ import annotations

import gzip
import io
import pickle
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
from fuzz_archives import IDX_GZ, TAR, TAR_GZ, ZIP
from fuzz_mutators import BYTES, JSON, TEXT, Mutator
from fuzz_pickles import PICKLE, PICKLES
from fuzz_pictures import JPEG, PICTURE, PNG, SAFETENSORS
from PIL import Image, features
from tiny_archives import cifar10_contents, write_cifar10

Read = Callable[[bytes], object]
FIXTURES = Path(__file__).parents[1] / "fixtures"
PICTURES = {
    "jpeg": ("JPEG", JPEG),
    "png": ("PNG", PNG),
    "webp": ("WEBP", PICTURE),
    "gif": ("GIF", PICTURE),
    "bmp": ("BMP", PICTURE),
    "tiff": ("TIFF", PICTURE),
    "ppm": ("PPM", TEXT),
    "ico": ("ICO", PICTURE),
    "jp2": ("JPEG2000", PICTURE),
    "avif": ("AVIF", PICTURE),
}


class Target(NamedTuple):
    """A reader, files it accepts, and how to damage them."""

    read: Read
    seeds: list[bytes]
    mutators: tuple[Mutator, ...]


def names() -> list[str]:
    """All readers, in the order of the table."""
    return [*_MAKERS, *(name for name, (kind, _) in PICTURES.items() if kind in _writable())]


def make(name: str, folder: Path) -> Target:
    """Make a reader's files in the empty `folder`, and return the reader."""
    return _picture(name) if name in PICTURES else _MAKERS[name](folder)


def _through(path: Path, read: Callable[[Path], object]) -> Read:
    def write_and_read(data: bytes) -> object:
        path.write_bytes(data)
        return read(path)

    return write_and_read


def _state() -> dict[str, np.ndarray]:
    return {"conv1.weight": np.ones((2, 3, 3, 3), np.float32), "bn1._mean": np.zeros(2, np.float16)}


def _weights(name: str) -> Callable[[Path], Target]:
    def make_target(folder: Path) -> Target:
        from paddle_resnet.models import read_state_dict
        from paddle_resnet.models.weights.state_dict import write_state_dict

        path = folder / f"x.{name}"
        if name.startswith("pth"):
            files = [f"{each}{name.removeprefix('pth')}.pth" for each in ("odd_tensors", "whole_module", "checkpoint")]
            seeds = [(FIXTURES / each).read_bytes() for each in files]
            kind = ZIP if name == "pth" else PICKLES
            return Target(_through(path, read_state_dict), seeds, kind)
        write_state_dict(path, _state(), "paddle")
        seeds = [path.read_bytes()]
        if name == "pdparams":
            seeds.append((FIXTURES / "odd_tensors.pkl").read_bytes())
            big = {
                "a": np.zeros(3, np.uint16),
                "UnpackBigParamInfor@@": {"b": {"OriginShape": (1, 3), "slices": ["a"]}},
            }
            seeds += [pickle.dumps(value, protocol) for value in (_state(), big) for protocol in (0, 2, 4, 5)]
        kind = PICKLE if name == "pdparams" else SAFETENSORS
        return Target(_through(path, read_state_dict), seeds, kind)

    return make_target


def _cifar(folder: Path) -> Target:
    from paddle_resnet.data.datasets.cifar import CIFAR10, load_cifar

    path = write_cifar10(folder)
    contents = {name: _few(value) for name, value in cifar10_contents().items()}
    seeds = [
        gzip.compress(gzip.decompress(path.read_bytes()), 1, mtime=0),
        write_cifar10(folder, contents).read_bytes(),
    ]
    return Target(_through(path, lambda root: load_cifar(CIFAR10, root, verify=False)), seeds[1:], TAR_GZ)


def _few(values: dict) -> dict:
    return {key: value if key == b"label_names" else value[:1] for key, value in values.items()}


def _cifar_member(folder: Path) -> Target:
    from paddle_resnet.data.datasets.cifar import CIFAR10, load_cifar

    for name, value in cifar10_contents().items():
        (folder / name).write_bytes(pickle.dumps(_few(value), 2))
    path = folder / "data_batch_2"
    batches = [pickle.dumps(_few(cifar10_contents()["data_batch_2"]), protocol) for protocol in (0, 2, 4)]
    return Target(_through(path, lambda _: load_cifar(CIFAR10, folder, verify=False)), batches, PICKLE)


def _shard(folder: Path) -> Target:
    """A tar archive of images and labels beside a whole one; its images are read too."""
    from paddle_resnet.config import DataConfig
    from paddle_resnet.data import open_splits

    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    seeds = []
    for stem, style in (("", tarfile.USTAR_FORMAT), ("", tarfile.PAX_FORMAT), ("n" * 120, tarfile.GNU_FORMAT)):
        written = io.BytesIO()
        with tarfile.open(fileobj=written, mode="w", format=style) as archive:
            for number in range(6):
                for suffix, content in (("png", picture.getvalue()), ("cls", b"%d" % (number % 2))):
                    member = tarfile.TarInfo(f"{stem}{number}.{suffix}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
        seeds.append(written.getvalue())
    (folder / "train-0.tar").write_bytes(seeds[0])
    config = DataConfig(source="image_shards", root=folder, image_size=8)

    def read(_: Path) -> object:
        splits = open_splits(config)
        return [len(part.labels) for part in (splits.train, splits.validation, splits.test)]

    return Target(_through(folder / "train-1.tar", read), seeds, TAR)


def _idx(folder: Path) -> Target:
    from paddle_resnet.data.datasets.fashion_mnist import read_idx

    seeds = [
        gzip.compress(
            bytes((0, 0, 8, len(shape))) + np.array(shape, ">u4").tobytes() + bytes(int(np.prod(shape))), mtime=0
        )
        for shape in ((2, 28, 28), (20,))
    ]
    return Target(_through(folder / "x.gz", read_idx), seeds, IDX_GZ)


def _config(folder: Path) -> Target:
    from paddle_resnet.config import Config

    configs = sorted((Path(__file__).parents[2] / "configs").rglob("*.yaml"))[:6]
    seeds = [path.read_bytes() for path in configs] + [Config().to_yaml().encode()]
    return Target(_through(folder / "config.yaml", Config.load), seeds, TEXT)


def _override(folder: Path) -> Target:
    from paddle_resnet.config import Config

    def read(data: bytes) -> object:
        return Config.from_values({}, [data.decode("utf-8", "surrogateescape")])

    return Target(read, [b"train.epochs=3", b"data.mean=[0.1, 0.2, 0.3]", b"name=a_1", b"data.root=~/x"], TEXT)


def _inference(folder: Path) -> Target:
    from paddle_resnet.inference.inference_config import FILE_NAME, InferenceConfig, ModelFile, check_files

    (folder / "model.json").write_text("{}")
    (folder / "model.pdiparams").write_text("x")
    described = InferenceConfig.model_validate(
        {
            "model": "resnet8",
            "classes": ["a", "b"],
            "input": {"image_size": 16, "resize": 16},
            "normalization": {"mean": [0.5] * 3, "std": [0.5] * 3},
            "versions": {"paddle": "3.3.1"},
            "files": {
                "program": ModelFile.of(folder / "model.json"),
                "parameters": ModelFile.of(folder / "model.pdiparams"),
            },
            "test": {"top1": 0.5, "images": 10},
            "precisions": {"fp32": {"paddle": None}},
            "exported_at": "2026-01-01",
        }
    )
    described.save(folder)

    def read(path: Path) -> object:
        config = InferenceConfig.load(path.parent)
        check_files(config, config.files.program, config.files.parameters)
        return config

    return Target(_through(folder / FILE_NAME, read), [(folder / FILE_NAME).read_bytes()], TEXT)


def _run_file(name: str) -> Callable[[Path], Target]:
    """A run with a checkpoint, of which one file is damaged, its checksum in state.json written anew."""

    def make_target(folder: Path) -> Target:
        import paddle

        from paddle_resnet.config import Config
        from paddle_resnet.files import md5_of
        from paddle_resnet.results import EpochRecord
        from paddle_resnet.text_files import write_json
        from paddle_resnet.training.checkpoints import read_checkpoint
        from paddle_resnet.training.data_manifest import DataManifest
        from paddle_resnet.training.run_folder import Run

        run = Run(folder, Config())
        run.config.save(run.config_path)
        run.write_metrics({"train": {"epochs": 1, "seconds": 1.5}, "test": {"top1": 0.5, "images": 10}})
        run.write_history([EpochRecord(epoch, 1.5, 0.5, 1.5, 0.5, 0.1, 10.0, 1.0) for epoch in (1, 2)])
        last = run.checkpoint_path("last")
        last.mkdir(parents=True)
        model = _model()
        files = {"optimizer.pdopt": model._optimizer, "scaler.pdscaler": paddle.amp.GradScaler()}
        for each, part in files.items():
            paddle.save(part.state_dict(), str(last / each))
        paddle.save(model.network.state_dict(), str(last / "model.pdparams"))
        shutil.copytree(last, run.checkpoint_path("best"))
        part = {"names": ["a/1.png", "b/2.png"], "labels": [0, 1], "sizes": [70, 71], "crc32": [7, None]}
        record = {"classes": ["a", "b"], "fingerprint": {"training images": 3}, "mean": [0.5, 0.5, 0.5]}
        write_json(run.data_path, {**record, "files": dict.fromkeys(("train", "validation", "test"), part)})
        recorder = {
            "records": [asdict(epoch) for epoch in run.history()], "step": 0, "learning_rate": 0.1,
            "means": {"loss": 0.0, "correct": 0.0, "samples": 0.0}, "train": {"cross_entropy": 1.5, "top1": 0.5},
            "images": 3, "seconds": 1.5, "seconds_of_run": 1.5,
        }  # fmt: skip
        loader = {"generator": np.random.default_rng(0).bit_generator.state}
        state = {
            "model": "resnet8", "validation_loss": 1.5, "validation_top1": 0.5, "paddle": "3.3.1",
            "averaged_steps": None,
            "epoch": 2, "step": 0, "finished": False, "processes": 1, "trained_on": {"paddle": "3.3.1", "threads": "1"},
            "data": {"training images": 3, "classes": ["a", "b"], "labels' checksum": 7},
            "states": {"Recorder": recorder, "TrainLoader": loader, "VisualDLLog": {"train": 10, "validation": 10}},
        }  # fmt: skip

        def write_state() -> None:
            write_json(
                last / "state.json",
                {**state, "md5": {each: md5_of(last / each) for each in (*files, "model.pdparams")}},
            )

        def read(path: Path) -> object:
            if path.name in files:
                write_state()
            run.metrics(), run.history(), DataManifest.read(run.data_path)
            checkpoint = read_checkpoint(run)
            if checkpoint is not None and path.name in files:
                checkpoint.restore_optimizer(model)
            return checkpoint

        write_state()
        path = last / name if (last / name).exists() else folder / name
        kind = PICKLE if name in files else JSON if name.endswith(".json") else TEXT
        return Target(_through(path, read), [path.read_bytes()], kind)

    return make_target


def _image_list(name: str) -> Callable[[Path], Target]:
    """A list, a table or a file of class names beside two images."""

    def make_target(folder: Path) -> Target:
        from paddle_resnet.config import DataConfig
        from paddle_resnet.data import open_splits

        for number in range(4):
            Image.new("RGB", (8, 8)).save(folder / f"{number}.png")
        (folder / "train.txt").write_text("".join(f"{number}.png {number % 2}\n" for number in range(4)))
        seeds = {
            "train.txt": [b"0.png 0\n1.png 1\n2.png 0\n3 1\n", b"./0.png\ta\n1.png\tb b\n2.png\ta\n3.png;c\n"],
            "train.csv": [b'id,label\n0,cat\n1,"do,g"\n2,cat\n3,"do,g"\n', b"label|path\n0|0.png\n1|1.png\n1|2.png\n"],
            "label.txt": [b"cat\ndog\n", b"0 cat\n1 dog\n"],
        }[name]
        path = folder / name
        data = {"source": "image_list", "image_size": 8, "train_list": str(folder / name.replace("label", "train"))}
        config = DataConfig.model_validate(data | ({"class_names": str(path)} if name == "label.txt" else {}))
        return Target(_through(path, lambda _: open_splits(config)), seeds, TEXT)

    return make_target


def _model():
    import paddle

    with paddle.utils.unique_name.guard():
        network = paddle.nn.Linear(2, 2)
        schedule = paddle.optimizer.lr.CosineAnnealingDecay(0.1, 10)
        model = paddle.Model(network)
        model.prepare(paddle.optimizer.Momentum(schedule, parameters=network.parameters()), paddle.nn.MSELoss())
        model.train_batch([np.ones((1, 2), np.float32)], [np.ones((1, 2), np.float32)])
    return model


def _zoo_record(folder: Path) -> Target:
    from paddle_resnet.zoo import cifar10_weights

    seeds = [cifar10_weights.record_path(name).read_bytes() for name in cifar10_weights.zoo_models()]
    cifar10_weights.FOLDER = folder
    path = cifar10_weights.record_path("resnet20")
    return Target(_through(path, lambda _: cifar10_weights.zoo_record("resnet20")), seeds, JSON)


def _file_list(folder: Path) -> Target:
    from paddle_resnet.inference.find_pictures import listed_pictures

    def read(data: bytes) -> object:
        # A list may name "/", which would be walked as asked.
        with mock.patch("os.path.isdir", lambda _: False):
            return [list(listed_pictures(io.BytesIO(data), separator)) for separator in (b"\0", b"\n")]

    return Target(read, [b"a.png\nb/c.jpg\r\n\n", b"a.png\0b\nc.png\0"], BYTES)


def _onnx(folder: Path) -> Target:
    from onnx_files import NETWORKS, Builder, backend_of

    seeds = []
    for network in NETWORKS:
        network(builder := Builder())
        seeds.append(builder.file())
    return Target(lambda data: backend_of(data, folder), seeds, BYTES)


def _picture(name: str) -> Target:
    from paddle_resnet.images.decode import decode_image

    kind, damage = PICTURES[name]
    seeds = []
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 4), np.uint8)
    for mode in ("RGB", "L", "P", "RGBA", "1", "I;16", "CMYK", "LA"):
        image = Image.fromarray(pixels).convert("I" if mode == "I;16" else mode)
        for options in ({}, {"progressive": True, "exif": _exif()}, {"save_all": True, "append_images": [image] * 2}):
            file = io.BytesIO()
            try:
                image.convert(mode).save(file, kind, **options)
            except (OSError, ValueError, KeyError, TypeError):
                continue  # the format has no such mode
            seeds.append(file.getvalue())
    return Target(lambda data: decode_image(data, 32, 28), list(dict.fromkeys(seeds)), damage)


def _exif() -> bytes:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "text"
    return exif.tobytes()


def _writable() -> set[str]:
    Image.init()
    return {kind for kind in Image.SAVE if kind in Image.OPEN and (kind != "AVIF" or features.check("avif"))}


_MAKERS: dict[str, Callable[[Path], Target]] = {
    **{name: _weights(name) for name in ("pdparams", "pth", "pth_old", "safetensors")},
    **{
        name: _run_file(name)
        for name in ("optimizer.pdopt", "scaler.pdscaler", "state.json", "data.json", "metrics.json", "history.csv")
    },
    "cifar": _cifar,
    "cifar_member": _cifar_member,
    "idx": _idx,
    "shard": _shard,
    "config": _config,
    "override": _override,
    "inference.yml": _inference,
    "zoo_record": _zoo_record,
    "onnx": _onnx,
    "file_list": _file_list,
    **{name: _image_list(name) for name in ("train.txt", "train.csv", "label.txt")},
}
