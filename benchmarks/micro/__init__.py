"""One hot function each: what a trick saves, kept beside it so that nobody removes it unknowingly.

A module here defines `CASES`, functions without arguments by name, and perhaps `CLAIMS`: (`fast`, `slow`, `ratio`) says that case
`fast` costs at most `ratio` times case `slow`. `python -m benchmarks.micro [MODULE …]` times the cases and checks the claims.
"""
