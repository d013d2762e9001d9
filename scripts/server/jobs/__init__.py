"""Generations that wait, run and are over: one at a time, whoever asked for them."""
