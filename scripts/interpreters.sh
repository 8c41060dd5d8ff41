#!/usr/bin/env bash
# Prints version and path of every CPython ≥ 3.11 found on PATH or under pyenv: one for each minor version, the oldest first.
set -euo pipefail

candidates() {
    compgen -c python3 | grep -xE 'python3(\.[0-9]+)?' | sort -u || true
    if command -v pyenv >/dev/null; then
        printf '%s\n' "$(pyenv root)"/versions/*/bin/python
    fi
}

# A candidate that does not run here (a pyenv shim of an inactive version, say) is none.
candidates | while read -r candidate; do
    "$candidate" - 2>/dev/null <<'PYTHON' || true
import sys
if sys.implementation.name == "cpython" and sys.version_info >= (3, 11) and sys.version_info.releaselevel == "final":
    print("%d.%d" % sys.version_info[:2], sys.executable)
PYTHON
done | sort -t. -k2,2n -s | awk '!seen[$1]++'
