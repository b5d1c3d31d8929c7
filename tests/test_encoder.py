"""An encoder finds where things are in pictures, and says when its latents have collapsed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from grasp_agent.models.encoder import EncoderConfig, EncoderReport, PixelEncoder, fit_encoder

SHAPE = (16, 16, 1)
QUICK = EncoderConfig(latent=6, channels=(8, 8, 8), steps_ahead=3, gradient_steps=120, batch_size=32, lr=5e-3)
LENGTH = 20


def walks(count: int = 40) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A bright spot that actions move: pictures, actions, where windows begin, and where the spot was."""
    generator = torch.Generator().manual_seed(0)
    place = 12 * torch.rand(count, 2, generator=generator) + 2
    places, actions = [], []
    for _ in range(LENGTH):
        action = 2 * torch.rand(count, 2, generator=generator) - 1
        places.append(place)
        actions.append(action)
        place = (place + 1.5 * action).clamp(1, 15)
    seen = torch.stack(places, 1).flatten(0, 1)
    grid = torch.stack(torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij"), -1)
    bright = (-(grid - seen[:, None, None]).square().sum(-1) / 3).exp()
    pictures = (255 * bright).to(torch.uint8)[..., None]
    first = torch.arange(count)[:, None] * LENGTH + torch.arange(LENGTH - QUICK.steps_ahead)
    return pictures, torch.stack(actions, 1).flatten(0, 1), first.flatten(), seen


def trained(config: EncoderConfig = QUICK, seed: int = 0) -> tuple[PixelEncoder, EncoderReport]:
    pictures, actions, windows, _ = walks()
    encoder = PixelEncoder(SHAPE, config, seed)
    return encoder, fit_encoder(encoder, pictures, actions, windows, seed=seed)


@pytest.fixture(scope="module")
def good() -> tuple[PixelEncoder, EncoderReport]:
    return trained()


def test_where_things_are_can_be_read_from_latents(good: tuple[PixelEncoder, EncoderReport]):
    pictures, _, _, seen = walks()
    with torch.no_grad():
        latents = good[0](pictures)
    features = torch.cat([latents, torch.ones(len(latents), 1)], 1)
    half = len(seen) // 2
    fitted = torch.linalg.lstsq(features[:half], seen[:half]).solution
    errors = (features[half:] @ fitted - seen[half:]).norm(dim=-1)
    spread = (seen[half:] - seen[half:].mean(0)).norm(dim=-1).mean()
    assert errors.mean() < 0.2 * spread


def test_the_next_latents_are_predictable_and_none_has_collapsed(good: tuple[PixelEncoder, EncoderReport]):
    _, report = good
    assert report.prediction < 0.5 * report.still
    assert report.rank > 1.5 and 0.7 < report.spread < 1.3  # two places, two entries at least


def test_a_collapse_is_told():
    """Without what keeps them, latents shrink until the normalisation cannot help."""
    _, report = trained(replace(QUICK, variance=0.0, covariance=0.0, inverse=0.0))
    assert report.spread < 0.1


def test_entries_that_must_differ_do(good: tuple[PixelEncoder, EncoderReport]):
    _, report = trained(replace(QUICK, covariance=1.0))
    assert report.rank > 2 * good[1].rank


def test_latents_do_not_depend_on_their_neighbours_or_on_the_batchs_form(good: tuple[PixelEncoder, EncoderReport]):
    pictures, *_ = walks()
    with torch.no_grad():
        together = good[0](pictures[:6].view(2, 3, *SHAPE))
        alone = torch.stack([good[0](picture[None])[0] for picture in pictures[:6]])
    assert together.shape == (2, 3, QUICK.latent)
    torch.testing.assert_close(together.flatten(0, 1), alone)


def test_a_seed_says_all_and_no_global_generator_is_touched():
    state = torch.get_rng_state()
    quick = replace(QUICK, gradient_steps=5)
    (one, _), (two, _), (other, _) = trained(quick), trained(quick), trained(quick, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(one.head.weight, other.head.weight)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="at least 16 x 16 pixels, got 8 x 64"):
        PixelEncoder((8, 64, 3))
    with pytest.raises(ValueError, match="latent: expected a whole number of at least 1, got 0"):
        EncoderConfig(latent=0)
    pictures, actions, *_ = walks(2)
    with pytest.raises(ValueError, match="windows: expected at least one of 3 steps"):
        fit_encoder(PixelEncoder(SHAPE, QUICK), pictures, actions, torch.arange(0))
