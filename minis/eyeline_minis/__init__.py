"""Miniatures, a folder each; `eyeline.load` finds them by name."""
