"""From a trained run to an exported model, checked against the network."""

from paddle_resnet.export.run_export import ExportReport, export_run

__all__ = [
    "ExportReport",
    "export_run",
]
