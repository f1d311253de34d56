"""Put a finished CIFAR-10 run's weights into the package, for "model.pretrained: cifar10".

examples:
  paddle-resnet publish output/resnet20_cifar10 --data "CIFAR-10 (JPEG copy)"

Writes paddle_resnet/zoo/cifar10/<network>.safetensors with the weights of checkpoints/best (with train.ema,
the average), and <network>.json beside it, from the run's config.yaml and metrics.json.
"""

from __future__ import annotations

import argparse

from paddle_resnet.cli import program


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="the run's folder")
    parser.add_argument("--data", required=True, metavar="TEXT", help="which edition of the images it was trained on")


def main(arguments: argparse.Namespace) -> None:
    program.prepare()
    from paddle_resnet.training import Run
    from paddle_resnet.training.publish_weights import publish_weights
    from paddle_resnet.zoo import cifar10_weights

    record = publish_weights(Run.open(arguments.run), arguments.data)
    path = cifar10_weights.weights_path(record.model)
    print(f"{path}: {path.stat().st_size:,} bytes")
    print(f"{record.model} on {record.data}: test top-1 {record.test_top1:.2%} on {record.test_images} images")
