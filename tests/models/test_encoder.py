"""An encoder finds positions in images, and reports a collapse of its latents."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from grasp_agent.models import EncoderConfig, EncoderReport, PixelEncoder, fit_encoder
from grasp_agent.models.encoder.axes import Axes
from grasp_agent.models.encoder.fitting import training_steps
from grasp_agent.models.encoder.losses import EpisodePairs, relative_spread

SHAPE = (32, 32, 1)
QUICK = EncoderConfig(points=3, channels=(6, 6), ahead=(1, 3), gradient_steps=150, batch_size=24, lr=1e-2)
LENGTH, SIZE = 20, 32


def walks(
    count: int = 40,
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.float32], NDArray[np.float64]]:
    """Returns images of a bright blob that actions move, windows of rows, actions, and the blob's positions."""
    random = np.random.default_rng(0)
    place = random.uniform(6, SIZE - 6, (count, 2))
    places, actions = [], []
    for _ in range(LENGTH):
        action = random.uniform(-1, 1, (count, 2))
        places.append(place)
        actions.append(action)
        place = np.clip(place + 2.5 * action, 3, SIZE - 3)
    seen = np.stack(places, 1).reshape(-1, 2)
    grid = np.stack(np.meshgrid(np.arange(SIZE), np.arange(SIZE), indexing="ij"), -1)
    bright = np.exp(-np.square(grid - seen[:, None, None]).sum(-1) / 8)
    first = (np.arange(count)[:, None] * LENGTH + np.arange(LENGTH - 3)).ravel()
    rows = first[:, None] + np.arange(4)
    taken = np.stack(actions, 1).reshape(-1, 2).astype(np.float32)
    return (255 * bright).astype(np.uint8)[..., None], rows, taken[rows[:, :-1]], seen


def trained(config: EncoderConfig = QUICK, seed: int = 0) -> tuple[PixelEncoder, EncoderReport]:
    images, rows, actions, _ = walks()
    encoder = PixelEncoder(SHAPE, config, seed=seed)
    return encoder, fit_encoder(encoder, images, rows, actions, seed=seed)


@pytest.fixture(scope="module")
def good() -> tuple[PixelEncoder, EncoderReport]:
    return trained()


def test_positions_can_be_regressed_from_latents(good: tuple[PixelEncoder, EncoderReport]):
    images, _, _, seen = walks()
    with torch.no_grad():
        latents = good[0](torch.from_numpy(images)).numpy()
    features = np.concatenate([latents, np.ones((len(latents), 1))], 1)
    half = len(seen) // 2
    fitted = np.linalg.lstsq(features[:half], seen[:half], rcond=None)[0]
    errors = np.linalg.norm(features[half:] @ fitted - seen[half:], axis=-1)
    spread = np.linalg.norm(seen[half:] - seen[half:].mean(0), axis=-1).mean()
    assert errors.mean() < 0.1 * spread


def test_latents_have_no_more_axes_than_things_move_along(good: tuple[PixelEncoder, EncoderReport]):
    encoder, report = good
    assert 2 <= encoder.latent <= 4 < 2 * QUICK.points
    assert report.prediction < 0.6 * report.still  # .05 to .39 over six seeds
    assert report.rank > 1.5 and 0.7 < report.spread < 1.3


@pytest.mark.parametrize("contrast", [0.0, 0.3])
def test_episodes_are_contrasted_if_that_has_a_weight(contrast: float, monkeypatch: pytest.MonkeyPatch):
    """The effect over seeds is measured by `benchmarks/encoders.py`."""
    images, rows, actions, _ = walks()
    episodes = np.arange(len(images))[rows[:, 0]] // LENGTH
    batches, contrastive_loss = list[NDArray[np.int64]](), EpisodePairs.contrastive_loss

    def weights(told: bool) -> torch.Tensor:
        def heard(pairs: EpisodePairs, read: torch.Tensor, batch: NDArray[np.int64]) -> torch.Tensor:
            batches.append(batch)
            return contrastive_loss(pairs, read, batch) if told else 0 * read.sum()

        monkeypatch.setattr(EpisodePairs, "contrastive_loss", heard)
        encoder = PixelEncoder(SHAPE, replace(QUICK, contrast=contrast), seed=0)
        fit_encoder(encoder, images, rows, actions, episodes=episodes, steps=4)
        return next(encoder.layers.parameters())

    assert torch.equal(weights(told=True), weights(told=False)) is (contrast == 0)
    assert len(batches) == (0 if contrast == 0 else 2 * 4)
    for batch in batches:
        one, other = np.split(batch, 2)
        assert (episodes[one] == episodes[other]).all() and (one != other).all()


@pytest.mark.parametrize("term", ["contrast", "focus"])
def test_a_term_falls_where_it_weighs_more_than_all_others(term: str, monkeypatch: pytest.MonkeyPatch):
    images, rows, actions, _ = walks()
    episodes = np.arange(len(images))[rows[:, 0]] // LENGTH
    found, contrastive_loss = list[float](), EpisodePairs.contrastive_loss

    def noted(value: torch.Tensor) -> torch.Tensor:
        found.append(float(value.detach().mean()))
        return value

    monkeypatch.setattr(EpisodePairs, "contrastive_loss", lambda *given: noted(contrastive_loss(*given)))
    monkeypatch.setattr(
        "grasp_agent.models.encoder.objective.relative_spread", lambda *given: noted(relative_spread(*given))
    )
    config = replace(QUICK, **{"contrast": 0.0, "focus": 0.0, term: 1000.0})
    fit_encoder(PixelEncoder(SHAPE, config, seed=0), images, rows, actions, episodes=episodes, steps=150)
    assert np.mean(found[-10:]) < 0.9 * np.mean(found[:10])


def test_each_window_of_a_batch_has_another_of_its_episode():
    pairs, generator = EpisodePairs(np.array([7, 3, 7, 7, 3, 5])), torch.Generator().manual_seed(0)
    found = set[tuple[int, int]]()
    for _ in range(100):
        one, other = pairs.batch(np.array([0, 1, 2, 5, 3, 4, 4, 4, 4]), generator).reshape(2, 4)
        assert one.tolist() == [0, 1, 2, 5]
        found |= set(zip(one.tolist(), other.tolist(), strict=True))
    assert found == {(0, 2), (0, 3), (1, 4), (2, 0), (2, 3), (5, 5)}  # the last one is alone


def test_the_contrastive_loss_is_high_for_equal_projections_of_different_episodes():
    pairs, apart = EpisodePairs(np.array([0, 1, 2, 0, 1, 2, 3, 0])), 9.0 * torch.eye(3)
    batch = np.array([0, 1, 2, 3, 4, 5])
    assert pairs.contrastive_loss(torch.cat([apart, apart]), batch) < 1e-6
    assert pairs.contrastive_loss(torch.zeros(6, 3), batch).item() == pytest.approx(np.log(3))
    assert pairs.contrastive_loss(torch.cat([apart, -apart]), batch) > 1
    assert (
        pairs.contrastive_loss(torch.zeros(4, 3), np.array([0, 3, 7, 0])) == 0
    )  # others of one episode are no negatives
    alone = torch.cat([apart, apart[:2], 5 - apart[2:]])
    assert (
        pairs.contrastive_loss(alone, np.array([0, 1, 6, 3, 4, 6])) < 1e-6
    )  # one without a partner is a negative only
    assert pairs.contrastive_loss(torch.ones(2, 3, requires_grad=True), np.array([6, 6])) == 0


@pytest.mark.parametrize("episodes", [[0] * 12, [*range(12)], [0, 0, 0, 1, 1, 1, 1, 1, 2, 3, 4, 5]])
@pytest.mark.parametrize("batch_size", [2, 5])
@pytest.mark.parametrize("velocities", [False, True])
def test_an_encoder_learns_whatever_the_episodes(episodes: list[int], batch_size: int, velocities: bool):
    images, rows, actions, _ = walks(2)
    config = replace(QUICK, batch_size=batch_size, ahead=(1, 2))
    report = fit_encoder(
        PixelEncoder(SHAPE, config),
        images,
        rows[:12],
        actions[:12],
        episodes=np.array(episodes),
        velocities=velocities,
        steps=12,
    )
    assert np.isfinite(report).all()


def test_a_collapse_is_reported():
    """Without the terms against a collapse, latents shrink until the normalisation cannot help."""
    nothing = replace(QUICK, variance=0.0, covariance=0.0, inverse=0.0, reconstruction=0.0, focus=0.0)
    _, report = trained(nothing)
    assert report.spread < 0.1


def test_constant_images_have_the_least_rank_and_spread():
    images, rows, actions, _ = walks()
    report = fit_encoder(PixelEncoder(SHAPE, QUICK, seed=0), np.full_like(images, 100), rows, actions, steps=3)
    assert report.rank < 1.1 and report.spread < 1e-3


def test_axes_are_fitted_to_many_steps_of_few_episodes(monkeypatch: pytest.MonkeyPatch):
    """With a few steps of each of many episodes, slow motion would seem static."""
    images, rows, actions, _ = walks()
    monkeypatch.setattr("grasp_agent.models.encoder.fitting._SAMPLES", 40)
    monkeypatch.setattr("grasp_agent.models.encoder.fitting._EPISODES", 4)
    told = list[torch.Tensor]()
    fit = Axes.fit

    def watched(axes: Axes, normalised: torch.Tensor, share: float, episodes: torch.Tensor, *pushed: torch.Tensor):
        told.append(episodes)
        fit(axes, normalised, share, episodes, *pushed)

    monkeypatch.setattr(Axes, "fit", watched)
    fit_encoder(PixelEncoder(SHAPE, QUICK), images, rows, actions, episodes=np.arange(len(rows)) // 17, steps=2)
    (episodes,) = told
    assert len(episodes.unique()) == 4
    assert (episodes.unique(return_counts=True)[1] >= 10).all()


def test_one_image_is_encoded_like_a_batch_of_one(good: tuple[PixelEncoder, EncoderReport]):
    encoder, image = good[0], torch.from_numpy(walks()[0][0])
    latent = encoder(image)
    assert torch.equal(latent, encoder(image[None])[0])
    assert torch.equal(encoder.decode(latent), encoder.decode(latent[None])[0])


def test_unsuitable_training_data_is_refused_at_once():
    images, rows, actions, _ = walks(4)
    with pytest.raises(ValueError, match="batch_size: expected a whole number of at least 2"):
        EncoderConfig(batch_size=1)
    with pytest.raises(ValueError, match="body: expected square images, in which it turns, got 32 x 40 pixels"):
        PixelEncoder((32, 40, 1), replace(QUICK, body=True))
    with pytest.raises(ValueError, match="steps: expected a whole number of at least 1"):
        fit_encoder(PixelEncoder(SHAPE, QUICK), images, rows, actions, steps=0)
    body = PixelEncoder(SHAPE, replace(QUICK, body=True))
    with pytest.raises(ValueError, match="body: expected actions of 2 entries"):
        fit_encoder(body, images, rows, actions[..., :1], steps=3)
    with pytest.raises(ValueError, match="expected an agent that actions move, found none"):
        fit_encoder(body, np.full_like(images, 100), rows, actions, steps=3)


def test_latents_can_be_decoded(good: tuple[PixelEncoder, EncoderReport]):
    images, (encoder, report) = walks()[0], good
    assert report.reconstruction < 0.5
    shown = encoder.decode(encoder(torch.from_numpy(images[:50])))
    assert shown.shape == (50, *SHAPE) and shown.dtype == torch.uint8
    brightest = [np.unravel_index(image.argmax(), SHAPE[:2]) for image in shown[..., 0].numpy()]
    wanted = [np.unravel_index(image.argmax(), SHAPE[:2]) for image in images[:50, ..., 0]]
    assert np.median(np.linalg.norm(np.subtract(brightest, wanted), axis=-1)) <= 3


def test_latents_do_not_depend_on_their_neighbours_or_on_the_batchs_form(good: tuple[PixelEncoder, EncoderReport]):
    images = torch.from_numpy(walks()[0][:6])
    with torch.no_grad():
        together = good[0](images.view(2, 3, *SHAPE))
        alone = torch.stack([good[0](image[None])[0] for image in images])
    torch.testing.assert_close(together.flatten(0, 1), alone, atol=1e-4, rtol=1e-4)


def test_a_seed_determines_all_and_no_global_generator_is_used():
    state = torch.get_rng_state()
    quick = replace(QUICK, gradient_steps=5)
    (one, _), (two, _), (other, _) = trained(quick), trained(quick), trained(quick, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(next(one.parameters()), next(other.parameters()))


def test_progress_is_reported_for_all_gradient_steps():
    (images, rows, actions, _), ticks = walks(4), list[int]()
    config = replace(QUICK, gradient_steps=6)
    fit_encoder(PixelEncoder(SHAPE, config), images, rows, actions, on_step=lambda: ticks.append(1))
    assert len(ticks) == training_steps(config, 6) == 6 + 3


@pytest.mark.parametrize("shape", [(16, 16, 1), (96, 96, 3), (50, 84, 1), (240, 320, 3)])
def test_images_may_have_any_size(shape: tuple[int, int, int]):
    encoder = PixelEncoder(shape, QUICK).eval()
    latents = encoder(torch.zeros(2, *shape, dtype=torch.uint8))
    assert latents.shape == (2, 2 * QUICK.points)
    assert encoder.decode(latents).shape == (2, *shape)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="images: expected at least"):
        PixelEncoder((8, 64, 3))
    with pytest.raises(ValueError, match="points: expected a whole number of at least 1, got 0"):
        EncoderConfig(points=0)
    with pytest.raises(ValueError, match="focus_start: expected a fraction"):
        EncoderConfig(focus_start=7)
    with pytest.raises(ValueError, match="focus_rise: expected more than 0, got 0"):
        EncoderConfig(focus_rise=0)
    with pytest.raises(ValueError, match="max_passes: expected a whole number of at least 1, got 0"):
        EncoderConfig(max_passes=0)
    with pytest.raises(ValueError, match="ahead: expected growing numbers of steps from 1"):
        EncoderConfig(ahead=(2, 4))
    images, rows, actions, _ = walks(2)
    with pytest.raises(ValueError, match="windows: expected at least one of 3 steps"):
        fit_encoder(PixelEncoder(SHAPE, QUICK), images, rows[:0], actions[:0])


def test_sharpness_and_whitening_are_folded_into_the_weights():
    """Trained encoders give the same latents by their weights only, as a file holds nothing else."""
    images = torch.from_numpy(walks()[0][:50])
    encoder = PixelEncoder(SHAPE, QUICK, seed=0).eval()
    plain = encoder(images)
    encoder.precondition(images)
    eased = encoder(images)
    encoder.fold()
    assert (eased - plain).abs().max() > 1e-3
    torch.testing.assert_close(encoder(images), eased, atol=1e-4, rtol=1e-4)
    copy = PixelEncoder.restore(SHAPE, QUICK, encoder.state_dict()).eval()
    torch.testing.assert_close(copy(images), encoder(images), atol=0, rtol=0)


def test_training_is_on_whitened_colours_and_sharp():
    images, rows, actions, _ = walks(8)
    coloured = np.concatenate([images, images // 2 + 40, images // 4], -1)
    coloured[::2, :8, :8, 1] = 120  # a second object, in another colour

    def learned(**changes: Any) -> torch.Tensor:
        encoder = PixelEncoder(coloured.shape[1:], replace(QUICK, **changes))
        fit_encoder(encoder, coloured, rows, actions, steps=3)
        return encoder.points(torch.from_numpy(coloured[:20]))

    plain = learned(whiten=False, sharpness=3.0)
    torch.testing.assert_close(learned(whiten=False, sharpness=3.0), plain, atol=0, rtol=0)
    assert (learned(whiten=False, sharpness=6.0) - plain).abs().max() > 1e-3
    assert (learned(whiten=True, sharpness=3.0) - plain).abs().max() > 1e-3


@pytest.mark.parametrize(("most", "low", "high"), [(70, 10, 100), (4, 0.9, 1.2)])
def test_faint_colours_count_once_they_are_whitened_but_not_the_faintest(most: int, low: float, high: float):
    generator = np.random.default_rng(0)
    loud = generator.integers(0, 180, (40, *SHAPE[:2], 1))
    faint = generator.integers(0, most, (40, *SHAPE[:2], 1))
    images = torch.from_numpy(np.concatenate([loud, loud, loud + faint], -1).astype(np.uint8))
    shape = (*SHAPE[:2], 3)
    encoder = PixelEncoder(shape, QUICK)
    encoder.precondition(images)
    seen = (images.float() / 255).flatten(0, -2) @ encoder._whitening
    before, after = (torch.linalg.eigvalsh(colours.mT.cov()) for colours in ((images / 255).flatten(0, -2), seen))
    assert low * before[1] / before[2] < after[1] / after[2] < high * before[1] / before[2]
    encoder = PixelEncoder(shape, EncoderConfig(whiten=False))
    encoder.precondition(images)
    torch.testing.assert_close(encoder._whitening, torch.eye(3))


def test_the_spread_of_maps_is_relative_to_the_motion_of_their_keypoints():
    encoder = PixelEncoder(SHAPE, QUICK)
    height, width = encoder.cells
    blobs = torch.zeros(4, 3, height, width)  # four images, three maps
    for image in range(4):
        blobs[image, 0, 2 + image, 5] = 1.0  # at one position, which moves
    blobs[:, 1] = 1 / (height * width)  # even everywhere
    blobs[:, 2, 3, 3] = blobs[:, 2, 9, 3] = 0.5  # at two positions, which stay
    maps = blobs.flatten(2)
    settled, even, split = relative_spread(encoder, maps, encoder.centres_of_mass(maps)).tolist()
    assert settled < 1e-3 < 1 < min(even, split)


@pytest.mark.parametrize(("focus", "steps"), [(0.0, 10), (0.2, 2), (0.2, 10)])
def test_the_focus_term_begins_after_a_part_of_the_training(focus: float, steps: int, monkeypatch: pytest.MonkeyPatch):
    """The first two of ten gradient steps are without it; its effect is in `docs/guides/images.md`."""
    images, rows, actions, _ = walks(2)
    asked, told = list[int](), list[int]()

    def heard(encoder: PixelEncoder, maps: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        asked.append(len(told))
        return relative_spread(encoder, maps, points)

    monkeypatch.setattr("grasp_agent.models.encoder.objective.relative_spread", heard)
    config = replace(QUICK, focus=focus)
    fit_encoder(PixelEncoder(SHAPE, config), images, rows, actions, steps=steps, on_step=lambda: told.append(0))
    assert asked == [step for step in range(steps) if focus and step / steps > 0.2]


@pytest.mark.slow
def test_motion_by_inertia_is_predicted_from_the_step_before():
    random = np.random.default_rng(0)
    speed = random.uniform(-1.5, 1.5, (60, 1, 2))
    places = random.uniform(12, 20, (60, 1, 2)) + speed * np.arange(5)[:, None]
    grid = np.stack(np.meshgrid(np.arange(SIZE), np.arange(SIZE), indexing="ij"), -1)
    bright = np.exp(-np.square(grid - places.reshape(-1, 1, 1, 2)).sum(-1) / 8)
    images, rows = (255 * bright).astype(np.uint8)[..., None], np.arange(300).reshape(60, 5)
    actions = np.zeros((60, 4, 2), np.float32)
    told = fit_encoder(PixelEncoder(SHAPE, QUICK), images, rows, actions, velocities=True)
    untold = fit_encoder(PixelEncoder(SHAPE, QUICK), images, rows, actions)
    assert told.prediction / told.still < 0.5 * untold.prediction / untold.still
    with pytest.raises(ValueError, match="of 4 steps"):
        fit_encoder(PixelEncoder(SHAPE, QUICK), images, rows[:, 1:], actions[:, 1:], velocities=True)
