"""Which Airflow this is."""

from __future__ import annotations

from airflow import __version__
from packaging.version import Version

_BASE = Version(Version(__version__).base_version)

AIRFLOW_V_3_0_PLUS = Version("3.0") <= _BASE
AIRFLOW_V_3_1_PLUS = Version("3.1") <= _BASE
AIRFLOW_V_3_2_PLUS = Version("3.2") <= _BASE
AIRFLOW_V_3_3_PLUS = Version("3.3") <= _BASE
AIRFLOW_V_3_4_PLUS = Version("3.4") <= _BASE
