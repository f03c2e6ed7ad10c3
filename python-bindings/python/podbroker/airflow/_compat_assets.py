"""The names of Airflow that stand for assets, wherever a version keeps them. See ``_compat``."""

from __future__ import annotations

from typing import Any

from podbroker.airflow._compat import AIRFLOW_V_3_0_PLUS

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


__all__ = ["Asset", "AssetAlias", "AssetNameRef", "AssetUriRef", "asset_of", "name_of"]


def name_of(asset: Asset) -> str:
    """Give an asset's name; a dataset of 2.11 has only its URI."""
    return str(getattr(asset, "name", asset.uri))


def asset_of(*, name: str | None, uri: str | None) -> Asset:
    """Make an asset of one of both or of both. Raises ``ValueError`` when Airflow does not take them."""
    if AIRFLOW_V_3_0_PLUS:
        return Asset(**{key: value for key, value in (("name", name), ("uri", uri)) if value is not None})
    if name is not None and uri is not None and name != uri:
        message = "this Airflow knows an asset by its uri only"
        raise ValueError(message)
    only: Any = uri or name
    return Asset(only)
