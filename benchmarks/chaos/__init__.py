"""What becomes of clients when workers are reloaded, killed, starved and overrun: `python -m benchmarks.chaos`."""
