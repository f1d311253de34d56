"""Classify picture files with an exported model: the most probable classes of each, in a table.

examples:
  paddle-resnet predict output/quickstart/inference seven.png
  paddle-resnet predict output/quickstart photos/                      the folder and all folders in it
  paddle-resnet predict output/quickstart 'photos/**/*.jpg' --quiet --csv predictions.csv
  find photos -newer last_time -print0 | paddle-resnet predict output/quickstart -0 - --json-lines new.jsonl
  paddle-resnet predict output/dogs test/ --quiet --csv submission.csv --columns id=stem,label=probability:dog
  paddle-resnet predict output/dogs photos/ --sort sorted/ --threshold 0.6     copies, a folder for each class
  paddle-resnet predict output/dogs photos/ --draw drawn/ --why                captions, and Grad-CAM beside
  paddle-resnet predict output/dogs s3://bucket/photos --engine ray --address auto --quiet --parquet predictions.parquet

Pictures may have any size, mode and rotation: they are scaled and cropped as inference.yml says. A file that is no
picture is reported, and the others are still classified. A pattern in quotes is expanded here (** is any folders), so
that it may match any number of files; - is a list of files on standard input, which is read in blocks: to classify
pictures as they arrive, use serve. Many pictures are shared out to processes, which on a CPU each hold the model, and
on a GPU decode ahead of it. Memory is bounded, and the order of the pictures is kept.

  standard output  the table, and nothing else; --quiet: nothing
  standard error   progress, files that cannot be read, and images/s at the end
  --csv            columns file, class, probability, class_2, probability_2 ... up to --top-k, or those of --columns:
                   title=content with path, name, stem (the name without .jpg), class, probability, probability:CLASS
  --json           a list of {"file": ..., "top": [{"class": ..., "probability": ...}, ...]}
  --json-lines     one such object a line
  --parquet        a table with the columns of --csv, probabilities as float32; needs pyarrow
                   A file gets its name when it is complete. A pipe, a device or - (standard output, which then has no
                   table) is written to at once. In a CSV, a text that a spreadsheet would compute (=1+1) gets a '
                   before it; JSON needs none.
  --threshold      a picture whose best probability is lower is of the class "unknown" everywhere; 0: none is. Where the
                   model has a threshold (eval --choose-threshold), it is the default
  --sort           copies the pictures to FOLDER/<class>/. Nothing is moved or overwritten: a name that another picture
                   has there gets a checksum, and the same picture is not copied again. Pictures in these folders, and
                   in that of --draw, are not classified
  --draw           writes FOLDER/<name>.jpg, the picture (shorter side 480) with class and probability
  --why            beside it what the network sees, and in orange what speaks for the class (Grad-CAM)
  --embeddings     an .npz of features [N, F] (the inputs of the last layer), names and classes. This and --why need the
                   model in the folder of its run

--engine ray spreads the work over a Ray cluster: PICTURES may also be URIs (s3://, gs://, hdfs:// ...), and files need
the same path on every node (docs/scale.md). It needs: pip install -r requirements/ray.txt

exit code: 0 all pictures classified; 1 some could not be read; 2 none could, or the command was wrong.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from paddle_resnet import runtime
from paddle_resnet.cli import parsing
from paddle_resnet.errors import RunFailure, UsageError, counted, printable, shown
from paddle_resnet.system import streams

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from paddle_resnet.inference import InferenceConfig, Prediction
    from paddle_resnet.inference.find_pictures import Unreadable
    from paddle_resnet.inference.predict_many import PredictFn
    from paddle_resnet.inference.prediction_files import PredictionWriter

LIST = "-"
LONGEST_CLASS = 24
FEW_BATCHES = 8  # up to so many batches this process predicts alone, as starting others would take longer
DRAWN_SIDE = 480
MOST_PROCESSES = 8  # each holds the model; more cores than that are used as threads


class Pictures(NamedTuple):
    """The files to classify, whether they are many, their number where known, and the other files.

    These are counted while `files` is read: by suffix, and those that lie where ``--sort`` and ``--draw`` write.
    """

    files: Iterator[Any]  # for Ray, which finds them itself, the names that the user gave
    many: bool
    total: int | None
    skipped: Counter[str]
    left_out: Counter[str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL_DIR", help="an exported model, or the run's folder that holds one")
    named = "files, folders, patterns in quotes, or - for a list of files"
    parser.add_argument("pictures", metavar="PICTURES", nargs="+", help=named)
    ended = "the list's names end with a zero byte (find -print0)"
    parser.add_argument("-0", "--null", action="store_const", dest="separator", const=b"\0", default=b"\n", help=ended)
    parsing.add_number(parser, "--top-k", "classes for each picture; default: 5", default=5)
    parser.add_argument("--quiet", action="store_true", help="print no table")
    parser.add_argument("--csv", type=parsing.path, metavar="FILE", help="write the predictions as CSV too")
    parser.add_argument("--columns", metavar="TITLE=CONTENT,...", help="of the CSV, e.g. id=stem,label=class")
    parser.add_argument("--json", type=parsing.path, metavar="FILE", help="write the predictions as JSON too")
    parser.add_argument("--json-lines", type=parsing.path, metavar="FILE", help="write predictions as JSON lines too")
    parser.add_argument("--parquet", type=parsing.path, metavar="FILE", help="write the predictions as Parquet too")
    parser.add_argument("--threshold", type=parsing.fraction, metavar="P", help='below it the class is "unknown"')
    parser.add_argument("--sort", type=parsing.path, metavar="FOLDER", help="copy pictures to a folder for each class")
    parser.add_argument("--draw", type=parsing.path, metavar="FOLDER", help="draw class and probability on pictures")
    parser.add_argument("--why", action="store_true", help="with --draw: Grad-CAM beside the picture")
    features = "write the features of all pictures"
    parser.add_argument("--embeddings", type=parsing.file_with(".npz"), metavar="FILE.npz", help=features)
    parsing.add_inference_options(parser)
    parsing.add_number(parser, "--batch-size", "pictures at once; default: 32", default=32)
    cores = "CPU threads; default: auto, OMP_NUM_THREADS or else the physical cores, fewer where those are faster"
    parsing.add_number(parser, "--threads", cores, type=parsing.count_or("auto"))
    shared = f"processes that share the threads and the pictures; default: a thread each, at most {MOST_PROCESSES}"
    parsing.add_number(parser, "--workers", shared)
    parsing.add_engine_options(parser)


def main(arguments: argparse.Namespace) -> None:
    if arguments.columns and not arguments.csv:
        raise UsageError("--columns: are of a CSV; name its file with --csv FILE")
    if arguments.why and not arguments.draw:
        raise UsageError("--why: is drawn beside the pictures; name their folder with --draw FOLDER")
    on_ray = parsing.uses_ray(arguments, "sort", "draw", "embeddings", "workers")
    outputs = [file for file in (arguments.csv, arguments.json, arguments.json_lines, arguments.parquet) if file]
    started = time.perf_counter()
    # No program.prepare(): its log lines would be among those of the table, and only Paddle's backend needs paddle.
    from paddle_resnet.images.find import summarize_skipped
    from paddle_resnet.inference.inference_config import InferenceConfig
    from paddle_resnet.inference.prediction_files import check_distinct, own_stream, partial_path
    from paddle_resnet.inference.predictor import UNKNOWN

    config = InferenceConfig.load(arguments.model)
    taken = check_distinct([*outputs, *filter(None, [arguments.embeddings])])
    pictures = _name_pictures(arguments, taken) if on_ray else _find_pictures(arguments, taken, config.classes)
    arguments.quiet = arguments.quiet or any(own_stream(file) == 1 for file in outputs)
    with ExitStack() as opened:
        if arguments.threshold is None:
            arguments.threshold = config.threshold or 0.0
        if arguments.threshold:
            _print_error(f'threshold {arguments.threshold:g}: below it a picture is of the class "{UNKNOWN}"')
        writers, top_k = _open_writers(arguments, config, opened)
        predict = _load_model(arguments, config, pictures, top_k, opened)
        # On one terminal the table itself is the progress, and a bar would tear it.
        bar_hidden = not arguments.quiet and sys.stdout.isatty()
        ready = time.perf_counter()
        try:
            predicted, failed = _write_predictions(predict, pictures, arguments.batch_size, writers, bar_hidden)
        except KeyboardInterrupt:
            for file in outputs:
                if own_stream(file) is None and partial_path(file).is_file():
                    _print_error(f"the predictions so far are kept in {partial_path(file)}")
            raise
        seconds = time.perf_counter() - ready
        if pictures.skipped:
            _print_error(summarize_skipped(pictures.skipped))
        for option, number in pictures.left_out.items():
            _print_error(f"left out: {counted(number, 'picture')} in the folders of {shown(option, 240)}")
        if not predicted and not failed:
            others = "no other pictures are named; name some, or another folder"
            raise UsageError(others if pictures.left_out else "the list on standard input names no pictures")
        if not predicted:
            sys.exit(UsageError.exit_code)  # each picture's own line has said why
        speed = f"{predicted:,} picture{'s' * (predicted != 1)} in {seconds:.2f} s, {predicted / seconds:,.0f} images/s"
        _print_error(f"{speed}; ready after {ready - started:.1f} s")
    if failed:
        raise RunFailure(f"{failed} of {predicted + failed} pictures could not be read; the others are classified")


def _find_pictures(arguments: argparse.Namespace, outputs: set[tuple[int, int]], classes: Sequence[str]) -> Pictures:
    """Find the pictures; one that is among the `outputs` (their devices and inodes) is a UsageError.

    Those in the folders that ``--sort`` and ``--draw`` write to, now or in an earlier run, are left out.
    """
    from paddle_resnet.inference.find_pictures import find_pictures, listed_pictures
    from paddle_resnet.inference.prediction_folders import folder_names

    written: dict[str, str] = {}  # folders, and the options that name them
    if arguments.sort:
        folders = (arguments.sort / name for name in folder_names(classes).values())
        written |= dict.fromkeys(map(os.path.realpath, folders), f"--sort {arguments.sort}")
    if arguments.draw:
        written[os.path.realpath(arguments.draw)] = f"--draw {arguments.draw}"

    def find(skipped: Counter[str], left_out: Counter[str]) -> Iterator[Path | Unreadable]:
        for name in arguments.pictures:
            if name == LIST:
                found = listed_pictures(sys.stdin.buffer, arguments.separator, skipped)
            else:
                found = find_pictures([name], skipped)
            for file in found:
                if isinstance(file, Path):
                    _check_is_no_output(file, outputs)
                    if written and (option := written.get(os.path.realpath(file.parent))):
                        left_out[option] += 1
                        continue
                yield file

    skipped, left_out = Counter[str](), Counter[str]()
    files, few = find(skipped, left_out), FEW_BATCHES * arguments.batch_size
    first = list(islice(files, few + 1))
    if len(first) <= few:
        return Pictures(iter(first), False, len(first), skipped, left_out)
    total = None if LIST in arguments.pictures else sum(1 for _ in find(Counter(), Counter()))
    return Pictures(chain(first, files), True, total, skipped, left_out)


def _name_pictures(arguments: argparse.Namespace, outputs: set[tuple[int, int]]) -> Pictures:
    """Return the names that the nodes of a cluster will look for; one of the `outputs` is a UsageError."""
    from paddle_resnet.inference.find_pictures import listed_names

    names: list[str] = []
    for name in arguments.pictures:
        names += listed_names(sys.stdin.buffer, arguments.separator) if name == LIST else [name]
    for name in names:
        _check_is_no_output(Path(name), outputs)
    return Pictures(iter(names), True, None, Counter(), Counter())


def _check_is_no_output(file: Path, outputs: set[tuple[int, int]]) -> None:
    from paddle_resnet.inference.prediction_files import file_id

    if outputs and os.path.isfile(file) and file_id(file) in outputs:  # noqa: PTH113 (Path's raises on a long name)
        raise UsageError(f"{shown(str(file), 240)}: is both a picture and an output; name another output")


def _load_model(
    arguments: argparse.Namespace, config: InferenceConfig, pictures: Pictures, top_k: int, opened: ExitStack
) -> PredictFn:
    """Load the model, into several processes where there are many pictures."""
    from paddle_resnet.inference import Predictor
    from paddle_resnet.inference.backends import resolve_device
    from paddle_resnet.inference.predict_many import decoding_workers, predict_here, prediction_workers

    model, names = config.folder, ("device", "precision", "backend", "batch_size", "threshold")
    options = {name: getattr(arguments, name) for name in names} | {"digest": config.digest()}
    if arguments.engine == "ray":
        from paddle_resnet.on_ray.predict import ray_tasks

        cpus = arguments.threads or 1
        cluster = arguments.address or "local"
        return opened.enter_context(ray_tasks(model, cluster, cpus, top_k, pictures.skipped, **options))
    options["device"] = resolve_device(arguments.device, arguments.backend)
    threads, many = arguments.threads or runtime.default_threads(), pictures.many
    processes = arguments.workers or min(threads, MOST_PROCESSES)
    if many and options["device"] == "cpu":
        return opened.enter_context(prediction_workers(model, processes, threads, top_k, **options))
    predictor = opened.enter_context(Predictor(model, threads=arguments.threads, **options))
    if many:
        return opened.enter_context(decoding_workers(predictor, processes, top_k))
    return predict_here(predictor, top_k)


def _open_writers(
    arguments: argparse.Namespace, config: InferenceConfig, opened: ExitStack
) -> tuple[list[PredictionWriter], int]:
    """Open the outputs; return them, and how many classes a prediction must rank for all of them."""
    from paddle_resnet.inference import prediction_files as files
    from paddle_resnet.inference.predictor import UNKNOWN

    classes = config.classes
    top_k = ranked = min(arguments.top_k, len(classes))
    writers = _picture_writers(arguments, config, opened)
    if arguments.csv:
        columns = files.parse_columns(arguments.columns, classes) if arguments.columns else files.ranked_columns(top_k)
        if any(column.needs_every_class for column in columns):
            ranked = len(classes)
        writers.append(opened.enter_context(files.open_csv(arguments.csv, columns)))
    others = {"json": files.open_json, "json_lines": files.open_json_lines, "parquet": files.open_parquet}
    for option, open_file in others.items():
        if file := getattr(arguments, option):
            writers.append(opened.enter_context(open_file(file, top_k)))
    if writers:
        streams.set_output_may_be_lost(True)  # the files are completed even if the table's reader (`head`) ends early
    if not arguments.quiet:
        writers.append(_table_writer((*classes, UNKNOWN) if arguments.threshold else classes, top_k))
    return writers, ranked


def _picture_writers(
    arguments: argparse.Namespace, config: InferenceConfig, opened: ExitStack
) -> list[PredictionWriter]:
    """Open the outputs that need the pictures again, some of them with the trained network."""
    from paddle_resnet.images.decode import decode_image, decode_whole
    from paddle_resnet.inference import Predictor, prediction_folders

    for folder in filter(None, (arguments.draw, arguments.sort)):
        for name in filter(os.path.isdir, arguments.pictures):
            if folder.resolve().is_relative_to(Path(name).resolve()):
                raise UsageError(f"{folder}: lies in {name}, whose pictures are classified; name another folder")

    def pixels_of(prediction: Prediction) -> np.ndarray:
        return decode_image(prediction.name, config.input.resize, config.input.image_size)

    trained = None
    if arguments.why or arguments.embeddings:
        runtime.import_paddle()
        from paddle_resnet.exporting.accuracy import load_trained

        with Predictor(config.folder, arguments.device, arguments.precision, backend=arguments.backend) as predictor:
            trained = load_trained(predictor)

    def draw(prediction: Prediction) -> Image.Image:
        from paddle_resnet.plots.annotation import annotate, heated
        from paddle_resnet.plots.style import shortened

        best, pixels = prediction.top[0], decode_whole(prediction.name, DRAWN_SIDE)
        caption = f"{shortened(best.label, LONGEST_CLASS)} {best.probability:.1%}"
        caption = caption if prediction.label == best.label else f"{prediction.label} ({caption})"
        if not arguments.why or trained is None:
            return annotate(pixels, caption)
        from paddle_resnet.evaluation.grad_cam import heat_map

        seen, label = pixels_of(prediction), config.classes.index(best.label)
        heat = heat_map(trained.network, trained.normalize, seen, label, DRAWN_SIDE)
        return annotate(pixels, caption, heated(seen, heat))

    def features(predictions: list[Prediction]) -> np.ndarray:
        import numpy as np

        from paddle_resnet.evaluation.run_plots import features_of

        assert trained is not None
        return features_of(trained.network, trained.normalize, [np.stack([*map(pixels_of, predictions)])])

    writers: list[PredictionWriter] = []
    if arguments.sort:
        writers.append(prediction_folders.sort_pictures(arguments.sort, config.classes))
    if arguments.draw:
        writers.append(prediction_folders.draw_pictures(arguments.draw, draw))
    if arguments.embeddings:
        writers.append(opened.enter_context(prediction_folders.open_embeddings(arguments.embeddings, features)))
    return writers


def _write_predictions(
    predict: PredictFn, pictures: Pictures, batch_size: int, writers: list[PredictionWriter], bar_hidden: bool
) -> tuple[int, int]:
    """Write all predictions, and report files that cannot be read; return the numbers of both."""
    from paddle_resnet.console import count_progress
    from paddle_resnet.inference.find_pictures import Unreadable
    from paddle_resnet.inference.predict_many import batched

    predicted = failed = 0
    with count_progress("pictures", pictures.total, hidden=bar_hidden) as advance:
        for results in predict(batched(pictures.files, batch_size)):
            unreadable = [result for result in results if isinstance(result, Unreadable)]
            predictions = [result for result in results if not isinstance(result, Unreadable)]
            for result in unreadable:
                _print_error(f"error: {result.reason}")
            for write in writers:
                write(predictions)
            predicted, failed = predicted + len(predictions), failed + len(unreadable)
            advance(len(results))
    return predicted, failed


def _print_error(line: str) -> None:
    """Print a line on standard error, above a progress bar."""
    from paddle_resnet.console import error_console

    error_console.print(line, soft_wrap=True)


def _table_writer(classes: tuple[str, ...], top_k: int) -> PredictionWriter:
    """Return what prints a row for each prediction; the columns are as wide as the class names."""
    width = min(LONGEST_CLASS, max(map(len, classes)))
    labels = {label: f"{printable(label)[:width]:{width}}" for label in classes}
    ranks = [f"{'top-' + str(rank):{width + 7}}" for rank in range(1, top_k + 1)]
    header = ["  ".join([*ranks, "file"])]

    def print_rows(predictions: Iterable[Prediction]) -> None:
        rows = []
        for prediction in predictions:
            names = [prediction.label, *(each.label for each in prediction.top[1:])]
            cells = [
                f"{labels[name]} {each.probability:6.1%}"
                for name, each in zip(names, prediction.top[:top_k], strict=False)
            ]
            rows.append("  ".join([*cells, printable(prediction.name)]))
        if rows:
            print("\n".join([*header, *rows]), flush=True)
            header.clear()

    return print_rows
