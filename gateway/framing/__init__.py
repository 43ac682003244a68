"""Frames: how records are cut out of a stream of bytes, and put into one. No meaning."""
