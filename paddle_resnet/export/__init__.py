"""From a trained run to an exported model, checked against the network."""

from paddle_resnet.export.exporter import ExportReport, export_run

__all__ = [
    "ExportReport",
    "export_run",
]
