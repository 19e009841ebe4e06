"""Metrics and traces for OpenTelemetry. The extra ``opentelemetry`` installs its API; the program sets up the SDK."""

from batchify.opentelemetry.metrics import instrument
from batchify.opentelemetry.tracing import traced

__all__ = ["instrument", "traced"]
