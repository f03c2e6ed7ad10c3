"""Makes asset events of what a pod's value says about assets.

The value is an object whose member ``asset_events`` is a list; each item names an asset and says the ``extra`` of its
event. The pod is not trusted: it may only name what the task declares in its ``outlets``, an asset or an alias, and
everything that it says has a limit, since it goes into Airflow's database. What does not fit is an error that names the
item, and then no event has anything of it.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from podbroker.airflow._compat import AIRFLOW_V_3_0_PLUS
from podbroker.airflow._compat_assets import Asset, AssetAlias, AssetNameRef, AssetUriRef

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["KEY", "AssetEvent", "AssetEventsError", "emit", "plan", "take"]

KEY = "asset_events"
"""The member of the value."""

MOST_EVENTS = 100
"""How many events one task may emit: each is a row of Airflow's database, and may start DAG runs."""

MOST_CHARACTERS = 1500
"""Of a name or a URI: the limit of Airflow's own columns."""

MOST_EXTRA_BYTES = 16 << 10
"""Of one event's ``extra`` as JSON: the database and the view of the event hold it whole."""

MOST_LEVELS = 8
"""How deep an ``extra`` may be nested."""

_MEMBERS = ("name", "uri", "alias", "extra")
_SHOWN = 200
_INTEGERS = range(-(1 << 63), 1 << 63)


class AssetEventsError(ValueError):
    """What the pod says about assets cannot be used; the message says which item, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetEvent:
    """One event that is going to be emitted."""

    outlet: Any
    """The asset, the reference or the alias among the task's outlets."""
    asset: Asset | None = None
    """For an alias: the asset that the event is of."""
    extra: dict[str, Any] = field(default_factory=dict)


def take(value: Any) -> tuple[Any, Any]:  # noqa: ANN401 -- JSON
    """Take the list out of a value: give the value without it, which is None if nothing is left, and the list."""
    if not isinstance(value, dict) or KEY not in value:
        return value, None
    rest = {name: each for name, each in value.items() if name != KEY}
    return rest or None, value[KEY]


def plan(said: Any, outlets: Sequence[Any]) -> list[AssetEvent]:  # noqa: ANN401 -- JSON
    """Check what the pod says against the task's outlets.

    Raises:
        AssetEventsError: Something does not fit.

    """
    if said is None:
        return []
    if not isinstance(said, list):
        raise AssetEventsError(f"`{KEY}` has to be a list, not {_kind(said)}")
    if len(said) > MOST_EVENTS:
        raise AssetEventsError(f"`{KEY}` has {len(said)} items; at most {MOST_EVENTS} are taken")
    events: list[AssetEvent] = []
    for at, item in enumerate(said):
        try:
            event = _event(item, outlets)
            if event.asset is None and any(each.outlet is event.outlet for each in events):
                raise AssetEventsError("the asset stands here twice, and has one event")  # noqa: TRY301 -- named below
        except AssetEventsError as error:
            raise AssetEventsError(f"`{KEY}`[{at}]: {error}") from None
        events.append(event)
    return events


def emit(events: Iterable[AssetEvent], outlet_events: Any) -> None:  # noqa: ANN401 -- of each Airflow its own
    """Hand the events to Airflow, which registers them when the task has succeeded."""
    for event in events:
        accessor = outlet_events[event.outlet]
        if event.asset is None:
            accessor.extra.update(event.extra)
        else:
            accessor.add(event.asset, extra=event.extra)


def _event(item: Any, outlets: Sequence[Any]) -> AssetEvent:  # noqa: ANN401 -- JSON
    if not isinstance(item, dict):
        raise AssetEventsError(f"it has to be an object, not {_kind(item)}")
    if unknown := sorted(set(item) - set(_MEMBERS)):
        raise AssetEventsError(f"it has {_shown(unknown[0])}; it may have {', '.join(_MEMBERS)}")
    name, uri, alias = (_text(item, member) for member in ("name", "uri", "alias"))
    if name is None and uri is None:
        raise AssetEventsError("it names no asset: it needs a name or a uri")
    if uri is not None:
        _check_uri(uri)
    extra = _extra(item.get("extra"))
    if alias is None:
        return AssetEvent(outlet=_declared(name, uri, outlets), extra=extra)
    known = next((each for each in outlets if isinstance(each, AssetAlias) and each.name == alias), None)
    if known is None:
        raise AssetEventsError(f"the alias {_shown(alias)} is not among the task's outlets")
    if not AIRFLOW_V_3_0_PLUS and any(isinstance(each, dict | list) for each in extra.values()):
        raise AssetEventsError("Airflow 2 takes no lists and no objects in the extra of an alias's event")
    return AssetEvent(outlet=known, asset=_made(name, uri), extra=extra)


def _declared(name: str | None, uri: str | None, outlets: Sequence[Any]) -> Any:  # noqa: ANN401 -- one of the outlets
    found = [each for each in outlets if _fits(each, name, uri)]
    what = " ".join(f"{member} {_shown(said)}" for member, said in (("name", name), ("uri", uri)) if said is not None)
    if not found:
        raise AssetEventsError(f"the asset with {what} is not among the task's outlets")
    if any(each != found[0] for each in found):
        raise AssetEventsError(f"several of the task's outlets fit {what}: say both name and uri")
    return found[0]


def _fits(outlet: Any, name: str | None, uri: str | None) -> bool:  # noqa: ANN401 -- whatever stands in outlets
    if isinstance(outlet, AssetNameRef):
        return uri is None and name == outlet.name
    if isinstance(outlet, AssetUriRef):
        return name is None and uri is not None and outlet.uri in {uri, _made(None, uri).uri}
    if not isinstance(outlet, Asset):
        return False
    if name is not None and name != getattr(outlet, "name", outlet.uri):
        return False
    return uri is None or outlet.uri in {uri, _made(None, uri).uri}


def _made(name: str | None, uri: str | None) -> Asset:
    """Make an asset of a name or a URI, or of both."""
    if not AIRFLOW_V_3_0_PLUS and name is not None and uri is not None and name != uri:
        raise AssetEventsError("Airflow 2 knows an asset by its uri only")
    try:
        if AIRFLOW_V_3_0_PLUS and name is not None and uri is not None:
            return Asset(name, uri)
        return Asset(str(uri or name))
    except (ValueError, TypeError) as error:
        raise AssetEventsError(f"Airflow does not take the asset: {error}") from None


def _text(item: dict[str, Any], member: str) -> str | None:
    text = item.get(member)
    if text is None:
        return None
    if not isinstance(text, str):
        raise AssetEventsError(f"{member} has to be a text, not {_kind(text)}")
    if not text.strip() or len(text) > MOST_CHARACTERS:
        raise AssetEventsError(f"{member} has {len(text)} characters; it needs 1 to {MOST_CHARACTERS}, not only spaces")
    if not text.isprintable():
        raise AssetEventsError(f"{member} {_shown(text)} has characters that cannot be shown")
    return text


def _check_uri(uri: str) -> None:
    try:
        has_password = urlsplit(uri).password is not None
    except ValueError as error:
        raise AssetEventsError(f"the uri {_shown(uri)} is none: {error}") from None
    if has_password:
        raise AssetEventsError("the uri has a password in it, which does not belong there")


def _extra(extra: Any) -> dict[str, Any]:  # noqa: ANN401 -- JSON
    if extra is None:
        return {}
    if not isinstance(extra, dict):
        raise AssetEventsError(f"extra has to be an object, not {_kind(extra)}")
    _check_value(extra, levels=MOST_LEVELS)
    size = len(json.dumps(extra, ensure_ascii=False).encode())
    if size > MOST_EXTRA_BYTES:
        raise AssetEventsError(f"extra has {size} bytes; at most {MOST_EXTRA_BYTES} are taken")
    return extra


def _check_value(value: Any, *, levels: int) -> None:  # noqa: ANN401 -- JSON
    """Refuse what the way to the database or the database itself does not take, and would only later."""
    if levels == 0:
        raise AssetEventsError(f"extra is nested deeper than {MOST_LEVELS} levels")
    if isinstance(value, dict):
        for name, each in value.items():
            _check_value(name, levels=levels)
            _check_value(each, levels=levels - 1)
    elif isinstance(value, list):
        for each in value:
            _check_value(each, levels=levels - 1)
    elif isinstance(value, str):
        if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
            raise AssetEventsError("extra has a text with a zero byte or half a character in it")
    elif isinstance(value, float) and not math.isfinite(value):
        raise AssetEventsError("extra has a number that JSON does not have")
    elif isinstance(value, int) and value not in _INTEGERS:
        raise AssetEventsError("extra has a whole number of more than 64 bits")


def _kind(value: Any) -> str:  # noqa: ANN401 -- JSON
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", type(None): "null"}
    return kinds.get(type(value), "a number")


def _shown(text: str) -> str:
    return ascii(text[:_SHOWN]) + ("..." if len(text) > _SHOWN else "")
