"""The small JSON endpoints beside a dialect's chat route that its clients call first."""
