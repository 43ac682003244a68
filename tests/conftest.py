"""Settings that every test shares."""

from hypothesis import settings

# Two loaded cores make single examples slow without anything being wrong.
settings.register_profile("gateway", deadline=None, print_blob=True)
settings.load_profile("gateway")
