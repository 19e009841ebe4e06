"""Metrics and traces for OpenTelemetry.

It needs the package ``opentelemetry-api``, which the extra ``opentelemetry`` installs. The program sets up the SDK.
"""

from batchify.opentelemetry.metrics import instrument
from batchify.opentelemetry.tracing import traced

__all__ = ["instrument", "traced"]
