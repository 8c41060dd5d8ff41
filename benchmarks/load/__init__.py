"""Whole-server scenarios: termserver and its peers under the same load, on the same core, in interleaved rounds.

Run `python -m benchmarks.load --help`. The figure that counts is CPU time per request of the whole process tree: on a shared
machine it is far steadier than throughput. Only ratios of one run are to be quoted.
"""
