"""What the public listener says about itself: an OpenAPI 3.1 document of every route.

One module for each dialect says what its routes take and answer, `document` puts them together.
Bounds, patterns, paths and credentials are those of the code that serves the routes; statuses and
bodies of errors are asked of the dialects, and the streams in the examples are written by their
encoders.
"""

from gateway.openapi.document import document, rendered

__all__ = ["document", "rendered"]
