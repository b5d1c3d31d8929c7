"""A lifted iteration never makes the host wait for the device: nothing it does depends on the value of a tensor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from problems import STARTS, TARGETS, noise
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from grasp_agent.models import EnsembleMLP, MLPConfig
from grasp_agent.planners import GRASP, Line, Problem
from grasp_agent.planners.goal import EntryGoal


class NoWaiting(TorchDispatchMode):
    """Fails at operations that read values of tensors on the host, or copy numbers of the host to the device."""

    WAITING = (
        "_local_scalar_dense",
        "equal",
        "is_nonzero",
        "lift_fresh",
        "masked_select",
        "nonzero",
        "nonzero_numpy",
        "repeat_interleave",
        "unique_dim",
        "_unique2",
    )

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Runs an operation."""
        name = func.__name__.partition(".")[0]
        masks = name in ("index", "index_put", "index_put_") and any(
            isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        moves = name == "_to_copy" and (kwargs or {}).get("device") is not None
        assert not (name in self.WAITING or masks or moves), f"the host waits for {func}"
        return func(*args, **(kwargs or {}))


def learned() -> Problem:
    """Three problems whose dynamics are an untrained network of four members."""
    model = EnsembleMLP(4, 2, positions=(0, 1), config=MLPConfig(width=16), seed=1).double()
    goal = EntryGoal(
        size=4, index=torch.arange(2), target=TARGETS[:3], weights=torch.ones(2, dtype=torch.float64), tolerance=0.1
    )
    return Problem(
        dynamics=model.step,
        action_jacobian=model.action_jacobian,
        action_pullback=model.action_pullback,
        goal=goal,
        start=torch.cat([STARTS, STARTS], 1)[:3],
        low=-torch.ones(2, dtype=torch.float64),
        high=torch.ones(2, dtype=torch.float64),
        horizon=8,
        members=model.members,
    )


SETTINGS = {"published": GRASP.paper(), "default": replace(GRASP(), opening=0, proposals=None)}


@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("candidates", [1, 8])
def test_an_iteration_never_waits_for_the_device(kind: str, candidates: int):
    planner = replace(SETTINGS[kind], candidates=candidates, initial=Line(), sync_every=10**9)
    problem, source = learned(), noise()
    with torch.no_grad():
        state = planner.step(problem, planner.init(problem, None, source), source)  # what is computed once
        with NoWaiting():
            after = planner.step(problem, state, source)
    assert after.iteration == state.iteration + 1


@pytest.mark.parametrize(
    "waits",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).all()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x.to("meta"),
        lambda x: torch.tensor([1.0]),
        lambda x: x.index_put((x > 0,), x.new_zeros(())),
    ],
)
def test_what_waits_is_noticed(waits: Callable[[Tensor], object]):
    with NoWaiting(), pytest.raises(AssertionError, match="the host waits"):
        waits(torch.ones(3))
