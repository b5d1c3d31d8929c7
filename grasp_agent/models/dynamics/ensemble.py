"""An ensemble of residual MLPs on vector observations, evaluated as one batched computation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from grasp_agent.models.dynamics.activations import ACTIVATIONS
from grasp_agent.models.dynamics.base import WorldModel
from grasp_agent.models.dynamics.normalizer import Normalizer
from grasp_agent.models.dynamics.pullback import PullbackWeights


@dataclass(frozen=True, kw_only=True)
class MLPConfig:
    """Shape of an `EnsembleMLP`.

    Attributes:
        members: K, ensemble members (Chua et al. 2018, arXiv 1805.12114).
        width: units of a hidden layer.
        depth: number of hidden layers.
        octaves: frequencies of the sine and cosine features of positions (Tancik et al. 2020, arXiv 2006.10739);
            without them an MLP smooths walls, and plans go through.
        activation: "relu" or "silu".

    Raises:
        ValueError: if a number is out of range.
    """

    members: int = 4
    width: int = 128
    depth: int = 3
    octaves: int = 5
    activation: Literal["relu", "silu"] = "relu"

    @classmethod
    def sharp(cls) -> MLPConfig:
        """Returns a shape for walls and contacts: ReLU and sine and cosine features of positions."""
        return cls()

    @classmethod
    def smooth(cls) -> MLPConfig:
        """Returns a shape for smooth motion: SiLU and no features."""
        return cls(octaves=0, activation="silu")

    def __post_init__(self) -> None:
        for name, least in (("members", 1), ("width", 1), ("depth", 1), ("octaves", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected at least {least}, got {getattr(self, name)}")
        if self.activation not in ("relu", "silu"):
            raise ValueError(f"activation: expected 'relu' or 'silu', got {self.activation!r}")


_SHIFT, _STRETCH = 0.3, 1.3  # drift of mean [standard deviations] and scale up to a warm start; chosen by hand
_OCTAVES_OF_PAIRS = 5  # also of networks without features of positions: contact is sharp; chosen by hand
_RANDOM_FEATURES = 64  # features along random directions
_RANDOM_FREQUENCY = 3.0  # the standard deviation of their frequencies


class EnsembleMLP(WorldModel):
    """K residual MLPs, `s' = s + scale * (net([features(s), a]) + W [s, a])`, on normalised states.

    The linear path models free motion, which is often linear; the network models the rest.

    Args:
        state_size: S.
        action_size: A.
        positions: entries of the state that are positions; they get sine and cosine features.
        config: the network's shape.
        seed: seed of the weights.
        fixed: static entries, such as the position of a door. If there are any, features along random directions are
            added: the dynamics of a ball depend on its position relative to the door.
        unit_groups: groups of entries in the same unit, see `Normalizer.fit`.
        pairs: pairs of positions in the same unit, whose differences get features, too.
    """

    def __init__(
        self,
        state_size: int,
        action_size: int,
        *,
        positions: Sequence[int] = (),
        config: MLPConfig | None = None,
        seed: int = 0,
        fixed: Sequence[int] = (),
        unit_groups: Sequence[Sequence[int]] = (),
        pairs: Sequence[tuple[int, int]] = (),
    ) -> None:
        super().__init__()
        self.config = config or MLPConfig()
        self.members = self.config.members
        self._activation = ACTIVATIONS[self.config.activation]
        self.state_size, self.action_size, self.positions = state_size, action_size, tuple(positions)
        self.normalizer = Normalizer(state_size)
        self._fixed, self.pairs = list(fixed), tuple(pairs)
        self._unit_groups = [*unit_groups, *([sorted({*chain(*pairs)})] if pairs else [])]
        self.register_buffer("scale", torch.ones(state_size))
        frequencies = math.pi / 2 * 2.0 ** torch.arange(self.config.octaves)
        self.register_buffer("_frequencies", frequencies, persistent=False)
        self.register_buffer("_positions", torch.tensor(self.positions, dtype=torch.long), persistent=False)
        of_positions = torch.zeros(state_size, len(self.positions), self.config.octaves)
        of_positions[list(self.positions), range(len(self.positions))] = frequencies
        octaves = math.pi / 2 * 2.0 ** torch.arange(_OCTAVES_OF_PAIRS)
        of_pairs = torch.zeros(state_size, len(pairs), _OCTAVES_OF_PAIRS)
        for column, (one, other) in enumerate(pairs):
            of_pairs[one, column], of_pairs[other, column] = octaves, -octaves
        mixed = torch.randn(state_size, _RANDOM_FEATURES, generator=torch.Generator().manual_seed(0))
        mixed = mixed * _RANDOM_FREQUENCY if fixed and self.config.octaves else mixed[:, :0]
        parts = of_positions, of_pairs, mixed
        self.register_buffer(
            "_angular_frequencies", torch.cat([part.flatten(1) for part in parts], 1), persistent=False
        )
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        generator = torch.Generator().manual_seed(seed)
        inputs = state_size + 2 * self._angular_frequencies.shape[1] + action_size
        sizes = [inputs, *[self.config.width] * self.config.depth, state_size]
        for fan_in, fan_out in pairwise(sizes):
            bound = 1 / math.sqrt(fan_in)
            for parameters, shape in ((self.weights, (fan_in, fan_out)), (self.biases, (1, fan_out))):
                draw = torch.rand(self.members, *shape, generator=generator)
                parameters.append(nn.Parameter((2 * draw - 1) * bound))
        self.skip = nn.Parameter(torch.zeros(self.members, state_size + action_size, state_size))
        self._cache_layers()
        self.register_load_state_dict_post_hook(EnsembleMLP._cache_layers)

    scale: Tensor
    """`[S]`, a typical step of each entry; 0 for a static one."""

    @property
    def unchanging(self) -> tuple[int, ...]:
        """See `WorldModel.unchanging`."""
        return tuple((self.scale == 0).nonzero()[:, 0].tolist())

    def _cache_layers(self, _: object = None) -> None:
        """Caches the layers in a list: iteration over a ParameterList is slow."""
        self._cached_layers = list(zip(self.weights, self.biases, strict=True))
        self._cached_tensors = [*self.weights, *self.biases, self.skip, self.scale]
        self._cached_pullbacks: dict[int, tuple[list[tuple[int, int]], PullbackWeights]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Returns what copies and pickles hold: no cache, whose workspaces are large."""
        return {**self.__dict__, "_cached_pullbacks": {}}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> EnsembleMLP:
        """Moves or converts all tensors, as in `nn.Module`, and the caches with them."""
        super()._apply(fn, recurse)
        self._cache_layers()
        return self

    _frequencies: Tensor
    _positions: Tensor
    _angular_frequencies: Tensor
    """`[S, F]`: a state times this gives the angles of its P positions at each octave, then those of mixtures."""

    def encode(self, observation: Tensor) -> Tensor:
        """See `WorldModel.encode`: normalises."""
        return self.normalizer(observation)

    def decode(self, state: Tensor) -> Tensor:
        """See `WorldModel.decode`."""
        return self.normalizer.inverse(state)

    def adapt(self, observations: Tensor, actions: Tensor, following: Tensor) -> None:
        """Fits what needs no gradient, here the normalisation, to transitions `[M, O]`, `[M, A]`, `[M, O]`."""
        self.normalizer.fit(observations, self._unit_groups)
        change = (following - observations) / self.normalizer.std
        self.scale.copy_(change.square().mean(0).sqrt().clamp_min(1e-4))
        self.scale[self._fixed] = 0

    def warm_start_from(self, known: EnsembleMLP, *, allow_drift: bool = False) -> bool:
        """Copies weights and normalisation of a model that was fitted to a part of the data.

        Args:
            known: the model; this one has been adapted to all data.
            allow_drift: copy also if mean or scale of the data have drifted from the model's normalisation; features of
                positions suffer from that.

        Returns:
            Whether it copied; never from a model of another shape.
        """
        same = type(known) is type(self) and known.config == self.config and known.unchanging == self.unchanging
        if not same or known.pairs != self.pairs or known.state_size != self.state_size:
            return False
        shift = (self.normalizer.mean - known.normalizer.mean).abs() / known.normalizer.std
        stretch = (self.normalizer.std / known.normalizer.std).log().abs()
        moved = bool((shift > _SHIFT).any() or (stretch > math.log(_STRETCH)).any())
        if moved and not allow_drift:
            return False
        self.load_state_dict(known.state_dict())
        return True

    def usable(self, windows: Tensor) -> Tensor:
        """Returns which windows `[M, T + 1, O]` to fit the model to, `[M]`: all."""
        return torch.ones(len(windows), dtype=torch.bool, device=windows.device)

    def step(self, state: Tensor, action: Tensor) -> Tensor:
        """See `WorldModel.step`."""
        hidden, inputs = self._features(state, action)
        (*inner, last), skip = self._layers(len(state))
        for weight, bias in inner:
            hidden = self._activation.apply(torch.baddbmm(bias, hidden, weight))
        change = torch.baddbmm(torch.baddbmm(last[1], hidden, last[0]), inputs, skip)
        return torch.addcmul(state, change, self.scale)

    def action_pullback(self, state: Tensor, action: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """See `WorldModel.action_pullback`: explicit transposed products of the layers, without autograd's graph."""
        return self._pullback_weights(len(state)).step(state, action, self._activation)

    def _pullback_weights(self, members: int) -> PullbackWeights:
        """Returns the first members' weights for `action_pullback`; cached until a tensor changes, but by `.data`."""
        versions = [(tensor.data_ptr(), tensor._version) for tensor in self._cached_tensors]
        cached = self._cached_pullbacks.get(members)
        if cached is None or cached[0] != versions:
            layers, skip = self._layers(members)
            cached = versions, PullbackWeights.of(layers, skip, self.scale, self._angular_frequencies)
            self._cached_pullbacks[members] = cached
        return cached[1]

    @torch.no_grad()
    def action_jacobian(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """See `WorldModel.action_jacobian`."""
        actions = slice(self.state_size, self.state_size + self.action_size)
        # An action entry enters the first layer by its row of the weights, the same for all rows: [K, 1, A, width].
        layers, skip = self._layers(len(state))
        following, slopes = self._tangents(state, action, layers[0][0][:, None, actions], skip[:, None, actions])
        return following, slopes.mT

    @torch.no_grad()
    def jacobian(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """See `WorldModel.jacobian`."""
        size, (layers, skip) = self.state_size + self.action_size, self._layers(len(state))
        first = layers[0][0][:, None, :size].expand(-1, state.shape[1], -1, -1)
        if self._angular_frequencies.shape[1]:
            sines, cosines = layers[0][0][:, size:].unflatten(1, (2, -1)).unbind(1)
            first = first.clone()
            self._add_feature_tangents(first, state @ self._angular_frequencies, sines, cosines)
        following, slopes = self._tangents(state, action, first, skip[:, None])
        slopes[..., : self.state_size, :] += torch.eye(self.state_size, dtype=slopes.dtype, device=slopes.device)
        return following, slopes.mT

    def _add_feature_tangents(self, first: Tensor, angles: Tensor, sines: Tensor, cosines: Tensor) -> None:
        """Adds the tangents of the sine and cosine features of angles `[K, M, F]` to those of the first layer.

        Args:
            first: `[K, M, S + A, width]`, changed in place.
            angles: angles of each position at each octave, which depend on that position alone, then of mixtures.
            sines: `[K, F, width]`, the layer's weights.
            cosines: `[K, F, width]`.
        """
        shape = len(self.positions), self.config.octaves
        own, size = math.prod(shape), self.state_size
        slopes, falls = angles.cos(), angles.sin()
        if own:
            rates = torch.zeros_like(first[..., : len(self.positions), :])
            for values, weights, sign in ((slopes, sines, 1), (falls, cosines, -1)):
                values = values[..., :own].unflatten(-1, shape) * (sign * self._frequencies)
                rates += torch.einsum("kmpf,kpfw->kmpw", values, weights[:, :own].unflatten(1, shape))
            first.index_add_(2, self._positions, rates)
        if own < angles.shape[-1]:
            along = self._angular_frequencies[:, own:]
            first[..., :size, :] += (slopes[..., None, own:] * along) @ sines[:, None, own:]
            first[..., :size, :] -= (falls[..., None, own:] * along) @ cosines[:, None, own:]

    def _tangents(self, state: Tensor, action: Tensor, first: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        """Returns next states `[K, M, S]` and D tangents of the change, `[K, M, D, S]`, by forward differentiation.

        Args:
            state: `[K, M, S]`.
            action: `[K, M, A]`.
            first: `[K, M or 1, D, width]`, the tangents in the first layer.
            skip: `[K, 1, D, S]`, the tangents of the linear path.
        """
        (hidden, inputs), tangent = self._features(state, action), first
        layers, linear = self._layers(len(state))
        for index, (weight, bias) in enumerate(layers):
            hidden = torch.baddbmm(bias, hidden, weight)
            if index:
                rows = tangent.shape[1:3]
                tangent = torch.bmm(tangent.flatten(1, 2), weight).unflatten(1, rows)
            if index < len(layers) - 1:
                shape = (*hidden.shape[:2], *tangent.shape[2:])
                tangent = self._activation.tangent(tangent.expand(shape), hidden[:, :, None], overwrite=index > 0)
                hidden = self._activation.apply(hidden)
        change = torch.baddbmm(hidden, inputs, linear)
        following = torch.addcmul(state, change, self.scale)
        return following, (tangent + skip) * self.scale

    def loss(self, states: Tensor, actions: Tensor) -> Tensor:
        """See `WorldModel.loss`: mean squared error along the model's rollout, in units of a typical step."""
        total = states.new_zeros(())
        state, moving = states[:, :, 0], (self.scale > 0).nonzero()[:, 0]
        unit = self.scale[moving]
        for t in range(actions.shape[2]):
            state = self.step(state, actions[:, :, t])
            missed = (state - states[:, :, t + 1])[..., moving]
            total = total + (missed / unit).square().mean()
        return total / actions.shape[2]

    def _layers(self, members: int) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
        """Returns weights and biases of the first members' layers, and their linear path."""
        if members == self.members:
            return self._cached_layers, self.skip
        return [(weight[:members], bias[:members]) for weight, bias in self._cached_layers], self.skip[:members]

    def _features(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the inputs of the network, `[k, M, F]`, and their first columns, those of the linear path."""
        if not self._angular_frequencies.shape[1]:
            inputs = torch.cat([state, action], dim=-1)
            return inputs, inputs
        angles = state @ self._angular_frequencies
        features = torch.cat([state, action, angles.sin(), angles.cos()], dim=-1)
        return features, features[..., : self.state_size + self.action_size]
