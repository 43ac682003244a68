"""A reverse proxy that lets clients of four chat services talk to any LLM.

Read `events.py`, `grammar.py` and `ports/` first: they are the whole vocabulary.
"""

from typing import Final

__version__: Final = "0.1.0"
