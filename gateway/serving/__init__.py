"""Processes, sockets, start and stop."""
