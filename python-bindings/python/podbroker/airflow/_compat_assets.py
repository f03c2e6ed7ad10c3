"""The names of Airflow that stand for assets, wherever a version keeps them. See ``_compat``."""

from __future__ import annotations

try:
    from airflow.sdk.definitions.asset import Asset, AssetAlias, AssetNameRef, AssetUriRef
except ImportError:  # Airflow 2.11, which calls assets datasets and has no references to them
    from airflow.datasets import (  # type: ignore[no-redef,attr-defined,import-not-found,unused-ignore]
        Dataset as Asset,
    )
    from airflow.datasets import (  # type: ignore[no-redef,attr-defined,unused-ignore]
        DatasetAlias as AssetAlias,
    )

    class AssetNameRef:  # type: ignore[no-redef]
        """Airflow 2.11 has none."""

        name = ""

    class AssetUriRef:  # type: ignore[no-redef]
        """Airflow 2.11 has none."""

        uri = ""


__all__ = ["Asset", "AssetAlias", "AssetNameRef", "AssetUriRef"]
