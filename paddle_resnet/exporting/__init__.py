"""From a trained run to an exported model, checked against the network."""

from paddle_resnet.exporting.exporter import ExportReport, export

__all__ = ["ExportReport", "export"]
