"""TensorBoard's event files, by the methods of VisualDL's `LogWriter` that a training uses."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary, SummaryMetadata
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.plugins.text.metadata import create_summary_metadata
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util.tensor_util import make_tensor_proto

from paddle_resnet.tracking.records import RecordFile


class EventFile(RecordFile):
    """A `RecordFile` in the format of TensorFlow's records, which have checksums."""

    def _framed(self, data: bytes) -> bytes:
        framed = io.BytesIO()
        RecordWriter(framed).write(data)
        return framed.getvalue()


class EventWriter:
    """Writes a run's scalars, texts, images, histograms and hyper-parameters. Steps are integers."""

    def __init__(self, folder: Path) -> None:
        """Append to the event file in the folder, or begin one."""
        earlier = sorted(folder.glob("events.out.tfevents.*"))
        self.file = EventFile(earlier[-1] if earlier else folder / f"events.out.tfevents.{int(time.time()):010d}.run")
        if not earlier:
            self.file.add_record(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self._add(Summary.Value(tag=tag, simple_value=value), step)

    def add_text(self, tag: str, text: str, step: int) -> None:
        metadata = create_summary_metadata(display_name="", description="")
        self._add(Summary.Value(tag=tag, metadata=metadata, tensor=make_tensor_proto(text)), step)

    def add_image(self, tag: str, pixels: np.ndarray, step: int) -> None:
        """Add an image, uint8 ``[H, W, 3]``."""
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        height, width, _ = pixels.shape
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=file.getvalue())
        self._add(Summary.Value(tag=tag, image=image), step)

    def add_histogram(self, tag: str, values: np.ndarray, step: int, buckets: int) -> None:
        counts, edges = np.histogram(values, buckets)
        histogram = HistogramProto(
            min=values.min(),
            max=values.max(),
            num=values.size,
            sum=values.sum(),
            sum_squares=(values**2).sum(),
            bucket_limit=edges[1:],
            bucket=counts,
        )
        self._add(Summary.Value(tag=tag, histo=histogram), step)

    def add_hparams(self, values: Mapping[str, float | str], metrics: Sequence[str]) -> None:
        """Add the run to the page of hyper-parameters, which finds the `metrics` among the scalars."""
        data = HParamsPluginData(version=hparams_metadata.PLUGIN_DATA_VERSION)
        for name, value in values.items():
            kind = "string_value" if isinstance(value, str) else "number_value"
            setattr(data.session_start_info.hparams[name], kind, value)
        plugin = SummaryMetadata.PluginData(plugin_name=hparams_metadata.PLUGIN_NAME, content=data.SerializeToString())
        tag, metadata = hparams_metadata.SESSION_START_INFO_TAG, SummaryMetadata(plugin_data=plugin)
        self._add(Summary.Value(tag=tag, metadata=metadata, tensor=hparams_metadata.NULL_TENSOR), 0)

    def _add(self, value: Summary.Value, step: int) -> None:
        self.file.add_record(Event(wall_time=time.time(), step=step, summary=Summary(value=[value])))

    def close(self) -> None:
        self.file.close()
