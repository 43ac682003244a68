"""The dialects: one client wire format a file, each with the same names inside."""

from typing import Final

from gateway.dialects.helper import Helper
from gateway.dialects.hyperleap import Hyperleap
from gateway.dialects.hyponema import Hyponema
from gateway.dialects.widget import Widget
from gateway.ports.codecs import Dialect

DIALECTS: Final[tuple[Dialect, ...]] = (Hyponema(), Hyperleap(), Widget(), Helper())

__all__ = ["DIALECTS", "Helper", "Hyperleap", "Hyponema", "Widget"]
