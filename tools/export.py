#!/usr/bin/env python3
"""Export a trained run for Paddle Inference, and check that the exported model answers as the network does.

examples:
  python tools/export.py output/quickstart
  python tools/export.py output/quickstart --checkpoint last

Writes RUN/inference/: the model in the format of the running Paddle (.json on 3.x, .pdmodel on 2.6), its weights, and
inference.yml with the classes, input size, resize and crop. The model takes raw pixels, uint8 [N, H, W, 3], and answers
with class probabilities: normalisation is in the graph. An earlier export is replaced only when the new one has passed
the check. Measure the export on the whole test split with: python tools/eval.py RUN --exported
"""

from __future__ import annotations

import argparse

import cli


def main() -> None:
    """Parse the arguments and export."""
    parser = cli.described(__doc__)
    parser.add_argument("run", metavar="RUN", help="a run's folder, as tools/train.py makes it")
    parser.add_argument("--checkpoint", choices=["best", "last"], default="best", help="default: best, by validation")
    parser.add_argument("--device", metavar="DEVICE", help="auto, cpu, gpu or gpu:<i>; default: the config's")
    cli.run_tool(parser, _export)


def _export(arguments: argparse.Namespace) -> None:
    cli.prepare()
    from paddle_resnet import runtime
    from paddle_resnet.deploy import export_run
    from paddle_resnet.training.run_folder import RunFolder

    run = RunFolder.open(arguments.run)
    runtime.select_device(arguments.device or run.config.device)
    report = export_run(run, arguments.checkpoint)
    print(f"exported to {report.path}")
    for file in report.files:
        print(f"  {file.name:20} {file.stat().st_size:>12,} bytes")
    print(
        f"checked on {report.images} real images: its probabilities differ from the network's by at most "
        f"{report.max_difference:.1g}"
    )
    print(f"next: python tools/predict.py {report.path} FILE_OR_FOLDER")


if __name__ == "__main__":
    main()
