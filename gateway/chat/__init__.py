"""`gateway chat`: a terminal client of a running gateway, in any of its four dialects.

It knows the wire from the vendors' documents, not from the encoders, and nothing of the
configuration: what it can do, any client can.
"""

from gateway.chat.target import Target, UsageError, choose
from gateway.chat.terminal import Terminal

__all__ = ["Target", "Terminal", "UsageError", "choose"]
