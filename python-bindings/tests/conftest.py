"""Lets all tests find what they share, wherever they are run from."""

from __future__ import annotations

import sys
from pathlib import Path

for folder in ("bindings", "."):
    sys.path.append(str((Path(__file__).parent / folder).resolve()))
