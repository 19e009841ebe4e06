"""Metrics and traces for OpenTelemetry. The extra ``opentelemetry`` installs its API; the program sets up the SDK."""

from batchify.errors import needs

try:
    from batchify.opentelemetry.metrics import instrument
    from batchify.opentelemetry.tracing import traced
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(needs(__name__, "opentelemetry-api", "opentelemetry")) from error

__all__ = ["instrument", "traced"]
