"""`--set FIELD=VALUE`: one field of an experiment, checked."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace

from i4d_bench.config.experiment import Experiment
from i4d_bench.config.nearest import nearest
from i4d_bench.types import UserError
from variants import design


def override(experiment: Experiment, assignments: list[str]) -> Experiment:
    """Applies `train.lr=3e-4`-like assignments (`overrides.DESIGN.SETTING=…` for a design's own settings).

    Raises UserError for an unknown field (with the nearest names) or a value of the wrong type.
    """
    for assignment in assignments:
        key, sep, text = assignment.partition("=")
        if not sep:
            raise UserError(f"an override reads FIELD=VALUE, not {assignment!r}")
        keys = key.split(".")
        if keys[0] == "overrides" and len(keys) > 1:
            design(keys[1])
            if len(keys) < 3:
                raise UserError(f"{key!r} is a design: name one of its settings, {key}.SETTING={text}")
        experiment = _set(experiment, keys, text, key)
    return experiment


def _set(node, keys: list[str], text: str, full: str):
    head, *rest = keys
    if isinstance(node, dict):
        value = _set(node.get(head, {}), rest, text, full) if rest else _parse(text)
        return {**node, head: value}
    fields = {f.name for f in dataclasses.fields(node)}
    if head not in fields:
        raise UserError(f"there is no setting {full!r}; did you mean {nearest(head, sorted(fields))}?")
    old = getattr(node, head)
    if rest:
        if not (dataclasses.is_dataclass(old) or isinstance(old, dict)):
            raise UserError(f"{full!r} goes too deep: {head} is {old!r}")
        return replace(node, **{head: _set(old, rest, text, full)})
    if dataclasses.is_dataclass(old) or isinstance(old, dict):
        raise UserError(f"{full!r} is a group of settings; name one of them")
    return replace(node, **{head: _convert(_parse(text), old, full)})


def _parse(text: str):
    try:
        return json.loads(text)
    except ValueError:
        return text


def _convert(value, old, full: str):
    if isinstance(old, tuple):
        items = value if isinstance(value, list) else [v for v in str(value).split(",") if v]
        if old and dataclasses.is_dataclass(old[0]):
            try:
                return tuple(type(old[0])(*item) for item in items)
            except TypeError as e:
                names = ", ".join(f.name for f in dataclasses.fields(old[0]))
                raise UserError(f"{full} takes a list of [{names}]") from e
        return tuple(items)
    if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if old is not None and type(value) is not type(old):
        raise UserError(f"{full} takes a {type(old).__name__}, not {value!r}")
    return value
