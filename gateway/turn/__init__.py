"""Runs a turn: the engine, its clocks, the prompt it sends and the tally it leaves."""
