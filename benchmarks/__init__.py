"""Measurements: `load` runs whole servers side by side, `micro` times one hot function each."""
