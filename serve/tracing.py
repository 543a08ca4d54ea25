"""OpenTelemetry traces of requests, which Ray Serve makes: where they go.

In the Serve config, with the endpoint where OpenTelemetry's own OTEL_EXPORTER_OTLP_ENDPOINT says:

    tracing_config: {enabled: true, exporter_import_path: "serve.tracing:otlp", sampling_ratio: 0.01}
"""

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor


def otlp() -> list[SpanProcessor]:
    """What Ray Serve calls in each of its processes."""
    return [BatchSpanProcessor(OTLPSpanExporter())]
