"""Options from which a training is configured, shared by `grasp train` and `grasp tune`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from grasp_agent.cli.base import UsageError, user_errors

if TYPE_CHECKING:
    from grasp_agent.task.goal import Goal

EnvOptions = Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY=VALUE", help_behavior_hint="")]
MaybeGoal = Annotated[str | None, tyro.conf.arg(metavar="JSON", help_behavior_hint="")]
MaybeTolerance = Annotated[float | None, tyro.conf.arg(metavar="DISTANCE", help_behavior_hint="")]


def env_options(parts: Sequence[str]) -> dict[str, Any]:
    """Returns options of an environment, each given as KEY=VALUE, or several as a JSON object.

    A value is JSON, such as 3, true or [1, 2]; anything else is text.

    Raises:
        UsageError: for anything else.
    """
    options: dict[str, Any] = {}
    for part in parts:
        if part.lstrip().startswith("{"):
            options.update(_json_object("--env-kwargs", part, '{"key": 1}'))
            continue
        name, equals, text = part.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f'--env-kwargs: expected KEY=VALUE, or JSON such as {{"key": 1}}, got {part!r}')
        try:
            options[name] = json.loads(text)
        except ValueError:
            options[name] = text
    return options


def goal_given(text: str, tolerance: float | None, usual: float | None = None) -> Goal:
    """Returns a goal that is given as a JSON object.

    Args:
        text: the object, which may hold a tolerance.
        tolerance: in place of that in the object, if it is given separately.
        usual: where neither is given.

    Raises:
        UsageError: if it is none.
    """
    from grasp_agent.evaluation.config import goal_from_json

    config: Mapping[str, Any] = _json_object("--goal", text, '{"0": 1.0, "2": 0.5}')
    if tolerance is None:
        tolerance = config.get("tolerance", usual)
    if tolerance is None:
        raise UsageError("--goal: expected its --goal-tolerance too, got none")
    with user_errors(ValueError):
        return goal_from_json(config, tolerance)


def _json_object(option: str, text: str, example: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UsageError(f"{option}: expected a JSON object, as in '{example}', got {text[:80]!r}")
    return found
