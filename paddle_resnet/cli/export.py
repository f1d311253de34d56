"""Export a trained run for deployment, check its probabilities against the network's, and measure each precision.

examples:
  paddle-resnet export output/quickstart
  paddle-resnet export output/quickstart --onnx                       for ONNX Runtime too, faster on a CPU
  paddle-resnet export output/quickstart --precision bf16 int8        measures what they cost in accuracy
  paddle-resnet export output/quickstart --graph                      also writes the graph for VisualDL
  paddle-resnet export output/quickstart --batch 1                    a graph for single images only
  paddle-resnet export output/quickstart --images 1000                measures a part of the test split
  paddle-resnet export output/quickstart --precision int8 --calibrate photos
  paddle-resnet export output/quickstart --paddlex DIR --triton REPOSITORY
  paddle-resnet export output/quickstart --web DIR --runtime node_modules/onnxruntime-web/dist

Writes RUN/inference/: the model in the format of the running Paddle (.json on 3.x, .pdmodel on 2.6), its weights, and
inference.yml with the classes, input size, resize and crop. The model takes raw pixels, uint8 [N, H, W, 3], and returns
class probabilities: the graph contains the normalisation, and its convolutions contain BatchNorm. An earlier export is
replaced only when the new one has passed the check.

  --precision  fp32 is always exported. bf16 (CPU) and fp16 (GPU) use its files, and are only measured here. int8 is
               quantised with images of the validation split, for ONNX Runtime, and includes --onnx
  --calibrate  without the run's data: pictures of this folder, like those to be predicted, for int8 and the check
  --paddlex    also writes a folder for paddlex.create_model (PaddleX 3)
  --triton     also writes a model repository for Triton Inference Server; includes --onnx
  --web        also writes a page that classifies pictures in the browser, without a server; includes --onnx
  --images     the number of test images for top-1 and agreement (the same class as the trained network's). With 0 the
               check uses random images, and only int8 needs the run's data

Classes and images must be those that the run was trained on; -o data.root=FOLDER says where the images are now.
docs/deployment.md says which precision fits where. --onnx needs: pip install -r requirements/onnx.txt (with Paddle 2.6:
onnx_paddle2.txt).
"""

from __future__ import annotations

import argparse
from itertools import permutations
from typing import TYPE_CHECKING

from paddle_resnet.cli import parsing, program
from paddle_resnet.errors import UsageError, command, counted
from paddle_resnet.inference.options import PRECISIONS

if TYPE_CHECKING:
    from paddle_resnet.exporting import ExportReport
    from paddle_resnet.training.run_folder import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parsing.add_run_options(parser)
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=["fp32"], help="default: fp32")
    parser.add_argument("--onnx", action="store_true", help="write an ONNX file too")
    parser.add_argument("--graph", action="store_true", help="write the graph for VisualDL to RUN/vdl/graph too")
    parser.add_argument("--paddlex", type=parsing.path, metavar="DIR", help="write a folder for PaddleX 3")
    parser.add_argument("--triton", type=parsing.path, metavar="DIR", help="write a model repository for Triton")
    parser.add_argument("--web", type=parsing.path, metavar="DIR", help="write a page for the browser; needs --runtime")
    runtime = "the folder dist of the npm package onnxruntime-web, which --web copies, or its address on the web"
    parser.add_argument("--runtime", metavar="DIR|URL", help=runtime)
    any_number, none = parsing.count_or("dynamic"), parsing.count_or("0", 0)
    parser.add_argument("--batch", type=any_number, metavar="dynamic|N", help="batch size; default: dynamic, any")
    parser.add_argument("--images", type=none, metavar="N", help="test images to measure; 0: none; default: all")
    calibrate = "pictures for int8 and the check, instead of the run's; --images is then 0 unless it is given"
    parser.add_argument("--calibrate", type=parsing.path, metavar="FOLDER", help=calibrate)


def main(arguments: argparse.Namespace) -> None:
    if (arguments.web is None) != (arguments.runtime is None):
        raise UsageError("--web DIR needs --runtime, the folder dist of the npm package onnxruntime-web or its address")
    program.prepare()
    from paddle_resnet import runtime
    from paddle_resnet.console import share_bar
    from paddle_resnet.exporting import export
    from paddle_resnet.exporting.program import write_graph
    from paddle_resnet.training.run_folder import Run

    run = Run.open_trained(arguments.run, arguments.overrides)
    _check_platforms(arguments, run)
    runtime.select_device(arguments.device or run.config.device)
    with share_bar("measure") as progress:
        report = export(
            run,
            arguments.checkpoint,
            precisions=arguments.precision,
            onnx=arguments.onnx or arguments.triton is not None or arguments.web is not None,
            batch=arguments.batch,
            images=0 if arguments.images is None and arguments.calibrate is not None else arguments.images,
            calibrate=arguments.calibrate,
            progress=progress,
        )
    print(f"exported to {report.path}")
    for file in report.files:
        print(f"  {file.name:20} {file.stat().st_size:>12,} bytes")
    images = counted(report.images, "random image" if report.random else "real image")
    print(f"checked on {images}: its probabilities differ from the network's by at most {report.max_difference:.1g}")
    _print_metrics(report)
    if arguments.graph:
        write_graph(run, arguments.checkpoint)
        print(f"graph: visualdl --logdir {run.config.output}")
    _write_platforms(arguments, run)
    print(f"next: {command('predict', report.path)} FILE_OR_FOLDER")


def _check_platforms(arguments: argparse.Namespace, run: Run) -> None:
    """Report a folder that cannot be used before minutes of measurements."""
    from paddle_resnet.exporting import platforms

    folders = []
    if arguments.paddlex is not None:
        folders.append((arguments.paddlex, platforms.PADDLEX_FILES))
    if arguments.triton is not None:
        for name in (run.config.name, f"{run.config.name}_int8"):
            folders.append((arguments.triton / name, platforms.TRITON_FILES))
    if arguments.web is not None:
        folders.append((arguments.web, platforms.WEB_FILES))
    for (one, _), (other, _) in permutations(folders, 2):
        if one.resolve().is_relative_to(other.resolve()):
            raise UsageError(f"{one}: lies in {other}; give --paddlex, --triton and --web folders of their own")
    for folder, own in folders:
        platforms.require_new_folder(folder, own)
    if arguments.web is not None:
        platforms.require_runtime(arguments.runtime)
        if arguments.batch is not None and arguments.batch > 1:
            raise UsageError(f"--web: the page classifies one picture at a time; leave out --batch {arguments.batch}")


def _write_platforms(arguments: argparse.Namespace, run: Run) -> None:
    from paddle_resnet.exporting.platforms import write_paddlex, write_triton, write_web

    if arguments.paddlex is not None:
        name = write_paddlex(run, arguments.checkpoint, arguments.paddlex)
        print(f'PaddleX: paddlex.create_model(model_name="{name}", model_dir="{arguments.paddlex}")')
    if arguments.triton is not None:
        names = ", ".join(write_triton(run, arguments.triton))
        print(f"Triton: tritonserver --model-repository {arguments.triton} ({names})")
    if arguments.web is not None:
        write_web(run, arguments.web, arguments.runtime, arguments.precision)
        print(f"browser: python -m http.server --directory {arguments.web}")


def _print_metrics(report: ExportReport) -> None:
    from paddle_resnet.results import accuracy_text

    for precision, backends in report.precisions.items():
        for backend, metrics in backends.items():
            if metrics is not None:
                top1, images = accuracy_text(metrics.top1, metrics.images), counted(metrics.images, "image")
                agreement = f"agreement with the trained network {metrics.agreement:.2%}"
                print(f"  {precision} by {backend:11}  top-1 {top1}, {agreement}, of {images}")
