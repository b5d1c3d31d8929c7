"""World models of others: what they have to offer, and how planners call them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from grasp_agent.planners.distance_goal import Distance

StepFunction = Callable[[Tensor, Tensor], Tensor]
"""`(latents [M, h, *shape], actions [M, h, A]) -> [M, *shape]`, see `LatentModel.step`."""
_CLOSE = 1e-3  # relative difference of two results that count as the same; chosen by hand
_ROUNDED = 1e-5  # relative difference that rounding may make; chosen by hand
_TRIED = 64  # entries of a predicted change by which a model is recognised; chosen by hand
_ROWS = 2**24  # numbers of latents in one call of the model (64 MB in single precision); chosen by hand


class LatentModel(Protocol):
    """A world model: any object with these two methods, such as a `torch.nn.Module`.

    Optional is `distance(latents [M, *shape], goals [M, *shape]) -> [M]`, which is differentiable and 0 at the goal.
    """

    def encode(self, observation: Any) -> Tensor:
        """Returns latents `[n, *shape]` of n observations, stacked as the environment's vector form has them."""
        ...

    def step(self, latents: Tensor, actions: Tensor) -> Tensor:
        """Returns the next latents `[M, *shape]`, treating each row by itself.

        Args:
            latents: `[M, h, *shape]`, the last h latents; the newest is the last.
            actions: `[M, h, frame_skip * A]`, the actions taken in them, in [-1, 1], one after the other.
        """
        ...


class LatentDynamics:
    """One or several world models as the dynamics of planning problems; latents are flattened to S entries.

    Args:
        models: the members; the first one encodes. A function counts as a `LatentModel.step` on vectors.
        history: h, latents that the models are given.
        action_size: entries of an action of the models, `frame_skip * A`.
        observation: one observation, for a trial.

    Attributes:
        models: the members.
        history: h.
        action_size: entries of an action.
        shape: of a latent.
        device: of the latents.
        dtype: of the latents.
        trial: some entries of the change that the first model predicts in a trial that is always the same.

    Raises:
        ValueError: if a model does not have this form, depends on more than its arguments, or is in training mode.
    """

    def __init__(self, models: Sequence[Any], history: int, action_size: int, observation: Any) -> None:
        if not models:
            raise ValueError("model: expected at least one, got an empty list")
        self.models = [_as_model(model) for model in models]
        self.history, self.action_size = history, action_size
        latent = _trial(self.models[0], "encode", observation)
        if latent.ndim < 2 or latent.shape[0] != 1:
            raise ValueError(f"model.encode: expected [1, *shape] for one observation, got {list(latent.shape)}")
        if latent.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"model.encode: expected latents of float32 or float64, got {latent.dtype}")
        self.shape, self.device, self.dtype = tuple(latent.shape[1:]), latent.device, latent.dtype
        found = [self._check(model, latent) for model in self.models]
        change = (found[0] - latent).flatten().cpu()
        self.trial = change[torch.linspace(0, len(change) - 1, min(_TRIED, len(change))).long()]

    @property
    def members(self) -> int:
        """K, the number of models."""
        return len(self.models)

    @property
    def size(self) -> int:
        """S, the entries of a latent."""
        return math.prod(self.shape)

    @property
    def context_size(self) -> int:
        """C, the entries of a context: the last h latents and the h - 1 actions between them."""
        return self.history * self.size + (self.history - 1) * self.action_size

    @property
    def distance(self) -> Distance | None:
        """The first model's own distance, of flattened latents; None if it has none."""
        own = getattr(self.models[0], "distance", None)
        if own is None:
            return None
        return lambda states, targets: own(self.unflatten(states), self.unflatten(targets))

    def unflatten(self, states: Tensor) -> Tensor:
        """Returns latents `[..., *shape]` of `[..., S]`."""
        return states.unflatten(-1, self.shape)

    @torch.no_grad()
    def encode(self, observation: Any) -> Tensor:
        """Returns latents `[n, S]` of n observations."""
        return self.models[0].encode(observation).flatten(1)

    def __call__(self, context: Tensor, action: Tensor) -> Tensor:
        """Returns the next latents `[k, M, S]` of the first k members; see `Problem.history` for contexts."""
        return torch.stack([self.step(model, *row) for model, *row in zip(self.models, context, action, strict=False)])

    def step(self, model: LatentModel, context: Tensor, action: Tensor) -> Tensor:
        """Returns the next latents `[M, S]` of one model, for contexts `[M, C]` and actions `[M, A]`."""
        known = self.history * self.size
        latents = context[:, :known].unflatten(1, (self.history, *self.shape))
        actions = torch.cat([context[:, known:], action], 1).unflatten(1, (self.history, self.action_size))
        rows = max(1, _ROWS // known)
        parts = [model.step(*part) for part in zip(latents.split(rows), actions.split(rows), strict=True)]
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).flatten(1)

    def _check(self, model: LatentModel, latent: Tensor) -> Tensor:
        """Returns what a model predicts for two rows; raises ValueError for what cannot be planned with."""
        training = [module for module in _modules(model) if module.training]
        if training:
            raise ValueError(f"model: expected evaluation mode, got {type(training[0]).__name__} in training mode")
        generator = torch.Generator().manual_seed(0)
        actions = (2 * torch.rand(2, self.history, self.action_size, generator=generator) - 1).to(latent)
        latents = latent[:, None].expand(2, self.history, *self.shape)
        following = _trial(model, "step", latents, actions)
        if following.shape != (2, *self.shape):
            raise ValueError(
                f"model.step: expected [2, {', '.join(map(str, self.shape))}] for latents {list(latents.shape)} and "
                f"actions {list(actions.shape)}, got {list(following.shape)}"
            )
        for name in ("dtype", "device"):
            if getattr(following, name) != getattr(latent, name):
                found = getattr(following, name)
                raise ValueError(f"model.step: expected the {name} of encode, {getattr(latent, name)}, got {found}")
        if not following.isfinite().all():
            raise ValueError("model.step: expected finite latents, got NaN or infinity")
        for wanted, rows in (("the same result for the same input", slice(None)), ("rows treated apart", slice(1))):
            again = _trial(model, "step", latents[rows], actions[rows])
            if len(again) != len(latents[rows]) or not _close(again, following[rows], latents[rows, -1]):
                raise ValueError(f"model.step: expected {wanted}; is it in training mode?")
        return following


def has_gradients(dynamics: LatentDynamics) -> bool:
    """Returns whether all models can be differentiated by their actions."""
    context = torch.zeros(1, dynamics.context_size, dtype=dynamics.dtype, device=dynamics.device)
    for model in dynamics.models:
        action = context.new_zeros(1, dynamics.action_size).requires_grad_()
        try:
            with torch.enable_grad():
                torch.autograd.grad(dynamics.step(model, context, action).sum(), action)
        except Exception:  # no derivative, or a step that leaves torch
            return False
    return True


def move(models: Sequence[Any], device: torch.device | str) -> None:
    """Moves the modules that models are or hold.

    Raises:
        ValueError: if there is no such device.
    """
    try:
        for model in models:
            for module in _modules(model):
                module.to(device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device: expected one of torch's that is present, got {device!r}: {error}") from error


class _OfFunction:
    """A `LatentModel` of a step function, whose latents are the observations."""

    def __init__(self, step: StepFunction) -> None:
        self._step = step

    def step(self, latents: Tensor, actions: Tensor) -> Tensor:
        """See `LatentModel.step`."""
        return self._step(latents, actions)

    def encode(self, observation: Any) -> Tensor:
        """Returns observations as they are, `[n, *shape]` in single precision."""
        if isinstance(observation, dict):
            observation = observation["observation"]
        return torch.from_numpy(np.asarray(observation, np.float32))


def _as_model(model: Any) -> LatentModel:
    if callable(getattr(model, "encode", None)) and callable(getattr(model, "step", None)):
        return model
    if callable(model) and not hasattr(model, "encode") and not hasattr(model, "step"):
        return _OfFunction(cast(StepFunction, model))
    raise ValueError(
        "model: expected an object with the methods encode and step, or a function (latents, actions) -> next latents, "
        f"got {type(model).__name__}"
    )


@torch.no_grad()
def _trial(model: Any, name: str, *arguments: Any) -> Tensor:
    shapes = ", ".join(str(list(part.shape)) if isinstance(part, Tensor) else type(part).__name__ for part in arguments)
    try:
        found = getattr(model, name)(*arguments)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"model.{name}: it failed for {shapes}: {type(error).__name__}: {reason}") from error
    if not isinstance(found, Tensor):
        raise ValueError(f"model.{name}: expected a torch.Tensor, got {type(found).__name__}")
    return found


def _close(one: Tensor, two: Tensor, before: Tensor) -> bool:
    """Returns whether two predictions are the same, compared with the change that they predict."""
    return bool((one - two).norm() <= _CLOSE * (two - before).norm() + _ROUNDED * (1 + two.norm()))


def _modules(model: Any) -> list[torch.nn.Module]:
    """Returns the torch modules that a model is or holds."""
    if isinstance(model, torch.nn.Module):
        return [model]
    held = vars(model).values() if hasattr(model, "__dict__") else ()
    return [part for part in held if isinstance(part, torch.nn.Module)]
