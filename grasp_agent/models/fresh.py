"""Untrained models, and checks of what they are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from torch import Tensor

from grasp_agent.models import EnsembleMLP, FramedMLP, MLPConfig
from grasp_agent.planners import Block
from grasp_agent.task.state_map import StateMap
from grasp_agent.task.structure import Frame

_MOST_INPUTS = 16_384  # of a network in a file; chosen by hand


def fresh_model(
    state_map: StateMap,
    action_size: int,
    config: MLPConfig,
    *,
    frame: Frame | None,
    fixed: Sequence[int] = (),
    unit_groups: Sequence[Sequence[int]] = (),
    pairs: Sequence[tuple[int, int]] = (),
    seed: int = 0,
) -> EnsembleMLP:
    """Returns an untrained model; without a frame, the goal's entries count as positions."""
    size, positions = len(state_map.columns), state_map.goal_index
    if frame is not None:
        return FramedMLP(size, action_size, frame=frame, config=config, seed=seed, unit_groups=unit_groups)
    return EnsembleMLP(
        size,
        action_size,
        positions=positions,
        config=config,
        seed=seed,
        fixed=fixed,
        unit_groups=unit_groups,
        pairs=pairs,
    )


def check_shapes(weights: Mapping[str, Tensor], config: MLPConfig, state_size: int, action_size: int) -> None:
    """Refuses weights that do not fit a network's shape, before memory for a network of that shape is allocated."""
    found = [tuple(weights[f"weights.{layer}"].shape) for layer in range(config.depth + 1)]
    inputs = found[0][1] if len(found[0]) == 3 else 0
    sizes = [inputs, *[config.width] * config.depth, state_size]
    wanted = [(config.members, *pair) for pair in pairwise(sizes)]
    skip = (config.members, state_size + action_size, state_size)
    if found != wanted or action_size < 1 or tuple(weights["skip"].shape) != skip or not 0 < inputs <= _MOST_INPUTS:
        raise ValueError(f"weights of shapes {found[:4]} do not fit {config}")
    if not bool((weights["normalizer.std"] > 0).all()):
        raise ValueError("model.normalizer.std: expected positive numbers")


def check_blocks(blocks: Sequence[Block], state_map: StateMap, action_size: int) -> None:
    """Checks that blocks partition state and action.

    Raises:
        ValueError: unless each entry is in exactly one block, and each block has a part of the goal.
    """
    if not blocks:
        return
    for name, size in (("states", len(state_map.columns)), ("actions", action_size)):
        entries = sorted(entry for block in blocks for entry in getattr(block, name))
        if entries != list(range(size)):
            raise ValueError(f"blocks: expected each of {size} {name} in one block, got {entries}")
    idle = [block for block in blocks if not set(block.states) & set(state_map.goal_index)]
    if idle:
        raise ValueError(f"blocks: expected a part of the goal in each, found none in {idle[0]}")
