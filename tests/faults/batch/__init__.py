"""The rows whose pods AWS Batch makes; its double does so on the real cluster, one double for each row.

They run side by side, as rows of pods do. `jobs` is what such a row has in its hands beside its stage.
"""

from __future__ import annotations

from typing import Final

from faults.batch import ending, running, submitting

ROWS: Final = (*submitting.ROWS, *running.ROWS, *ending.ROWS)
