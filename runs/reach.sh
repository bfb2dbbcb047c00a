#!/usr/bin/env bash
# From the making of an event to the page's code in a browser. Run with nothing else running; needs Chromium.
set -euo pipefail
cd "$(dirname "$0")/.."
.venv/bin/python -m benchmarks.reach --out results/reach.csv
