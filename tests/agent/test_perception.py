"""Agents that learn from images: encoders, goals as images, checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import imageio.v3 as iio
import numpy as np
import pytest
import torch
from agents import PIXELS, images_of, tiny, tiny_seer
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3 import SAC
from stable_baselines3.common.buffers import DictReplayBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecFrameStack

from grasp_agent import GraspAgent
from grasp_agent.agent.pixel_perception import PixelPerception
from grasp_agent.models import EncoderConfig, EncoderReport, PixelEncoder
from grasp_agent.video.imagination import imagined, record_imagination


class MovingDot(gym.Env[Any, Any]):
    """A moving dot, as an image, stacked images, or an image and a vector."""

    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, form: str = "alone") -> None:
        self.form = form
        image = spaces.Box(0, 255, (16, 16, 1), np.uint8)
        self.observation_space = {
            "alone": image,
            "stacked": spaces.Box(0, 255, (16, 16, 2), np.uint8),
            "felt": spaces.Dict({"eye": image, "arm": spaces.Box(-1, 1, (1,), np.float32), "desired_goal": image}),
        }[form]

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.position, self.count = self.np_random.uniform(3, 13, 2), 0
        self.before = self.draw(self.position)
        return self.observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.before = self.draw(self.position)
        self.position = np.clip(self.position + action, 2, 14)
        self.count += 1
        return self.observe(), 0.0, False, self.count >= 20, {}

    def draw(self, position: NDArray[np.float64]) -> NDArray[np.uint8]:
        grid = np.stack(np.meshgrid(np.arange(16), np.arange(16), indexing="ij"), -1)
        return (255 * np.exp(-np.square(grid - position).sum(-1, keepdims=True) / 4)).astype(np.uint8)

    def observe(self) -> Any:
        now = self.draw(self.position)
        if self.form == "felt":
            return {"eye": now, "arm": np.float32(self.position[:1] / 16), "desired_goal": self.draw(np.full(2, 8.0))}
        return np.concatenate([self.before, now], -1) if self.form == "stacked" else now


class TestAgent:
    @pytest.mark.parametrize("form", ["alone", "stacked", "felt"])
    def test_images_are_learned_from_in_any_form(self, form: str, tmp_path: Path):
        env = MovingDot(form)
        agent = tiny_seer(env, policy="MultiInputPolicy" if form == "felt" else "CnnPolicy").learn(150)
        observation, _ = env.reset(seed=0)
        if form != "felt":
            with pytest.raises(ValueError, match="expected an image, by set_goal"):
                agent.predict(observation)
            agent.set_goal(env.draw(np.full(2, 8.0)))
        action, _ = agent.predict(observation, deterministic=True)
        assert action.shape == (2,) and env.action_space.contains(action)
        encoder = images_of(agent).encoder
        assert encoder is not None
        size = encoder.latent
        extra = {"alone": 0, "stacked": size, "felt": 1}[form]
        assert agent.policy.observation_space["observation"].shape == (size + extra,)
        agent.save(tmp_path / "seer.zip")
        again = GraspAgent.load(tmp_path / "seer.zip", env=env, device="cpu")
        if form != "felt":
            again.set_goal(env.draw(np.full(2, 8.0)))
        np.testing.assert_array_equal(again.predict(observation, deterministic=True)[0], action)
        again.learn(40)

    def test_grey_frames_may_be_counted(self, tmp_path: Path):
        def seer(frames: int | None) -> GraspAgent:
            config = EncoderConfig(
                points=2, channels=(2, 4), ahead=(1, 2), gradient_steps=5, batch_size=8, frames=frames
            )
            env = VecFrameStack(make_vec_env(MovingDot), 3)
            return tiny_seer(env, policy="CnnPolicy", encoder=config)

        agent = seer(3).learn(150)
        agent.save(tmp_path / "grey.zip")
        for known in (agent, GraspAgent.load(tmp_path / "grey.zip", device="cpu")):
            assert images_of(known).layout.frames == 3
            assert images_of(known).layout.shape == (16, 16, 1)
        other = seer(None)
        assert images_of(other).layout.frames == 1
        with pytest.raises(ValueError, match="expected frames as here"):
            other.set_parameters(tmp_path / "grey.zip")

    def test_a_goal_that_was_set_is_used_until_it_is_reset(self):
        agent = tiny_seer().learn(150)
        env: Any = gym.make(PIXELS)
        observation, _ = env.reset(seed=0)
        theirs = agent.perception.to_goal_dict(observation)["desired_goal"]
        agent.set_goal(observation["observation"])
        mine = agent.perception.to_goal_dict(observation)
        np.testing.assert_allclose(mine["desired_goal"], mine["achieved_goal"], atol=1e-5)
        agent.set_goal(None)
        np.testing.assert_array_equal(agent.perception.to_goal_dict(observation)["desired_goal"], theirs)
        with pytest.raises(ValueError, match="Unexpected observation shape"):
            agent.set_goal(np.zeros((9, 9, 3), np.uint8))
        with pytest.raises(ValueError, match="whose observations are images"):
            tiny().set_goal(observation["observation"])

    def test_each_image_is_encoded_once(self, monkeypatch: pytest.MonkeyPatch):
        agent = tiny_seer().learn(150)
        encoder = images_of(agent).encoder
        assert encoder is not None
        count, forward = 0, encoder.forward

        def counted(batch: Any) -> Any:
            nonlocal count
            count += len(batch)
            return forward(batch)

        monkeypatch.setattr(encoder, "forward", counted)
        env = gym.make(PIXELS)
        observation, _ = env.reset(seed=5)
        shown = {observation[key].tobytes() for key in ("observation", "desired_goal")}
        for _ in range(8):
            observation, *_ = env.step(agent.predict(observation)[0])
            shown.add(observation["observation"].tobytes())
        agent.predict(observation)
        assert count == len(shown) >= 3

    def test_an_agent_learns_from_a_replay_buffer_of_images(self):
        env = gym.make(PIXELS)
        model = SAC("MultiInputPolicy", env, buffer_size=200, learning_starts=200, device="cpu", seed=0).learn(120)
        assert isinstance(model.replay_buffer, DictReplayBuffer)
        agent = tiny_seer().fit(model.replay_buffer)
        assert len(images_of(agent).buffer) == len(agent.trainer.dataset) == 120
        observation, _ = env.reset(seed=0)
        assert env.action_space.contains(agent.predict(observation)[0])
        first = images_of(agent).buffer.images[images_of(agent).buffer.episodes[0].rows[0]]
        kept = model.replay_buffer.observations["observation"][0, 0]
        np.testing.assert_array_equal(first, np.moveaxis(kept, 0, -1) if kept.shape[0] == 3 else kept)

    def test_a_training_resumes_from_its_checkpoint(self, tmp_path: Path):
        path = tmp_path / "long.zip"
        tiny_seer().learn(150, checkpoint=path)
        assert (tmp_path / "long.zip.pictures").stat().st_size >= 151 * 64 * 64 * 3
        agent = tiny_seer().learn(220, checkpoint=path)
        assert agent.num_timesteps == 220 and len(images_of(agent).buffer) == 220
        assert len(agent.trainer.dataset) == 220

    def test_checkpoints_in_one_folder_have_separate_images(self, tmp_path: Path):
        one, two = tmp_path / "ball.v1", tmp_path / "ball.v2"
        for path in (one, two):
            tiny_seer().learn(110, checkpoint=path)
        agent = tiny_seer().learn(150, checkpoint=one)
        assert len(images_of(agent).buffer) == 150
        (tmp_path / "ball.v2.pictures").unlink()
        with pytest.raises(ValueError, match=r"ball.v2.pictures: .*expected .* images that belong to a checkpoint"):
            tiny_seer().learn(150, checkpoint=two)
        other = EncoderConfig(points=3, channels=(2, 4), ahead=(1, 2), gradient_steps=5, batch_size=8)
        with pytest.raises(ValueError, match=r"encoder: expected one of EncoderConfig\(points=3"):
            tiny_seer(encoder=other).learn(150, checkpoint=one)

    @pytest.mark.slow
    def test_images_without_content_raise_a_warning(self):
        config = EncoderConfig(points=2, channels=(2, 4), ahead=(1, 2), gradient_steps=150, batch_size=8)
        perception = images_of(tiny_seer(encoder=config))
        shown = np.full((31, *perception.layout.stacked), 90, np.uint8)
        for _ in range(3):
            perception.buffer.add(shown, np.zeros((31, 0), np.float32), np.zeros((30, 2), np.float32))
        with pytest.warns(UserWarning, match="found nothing in them that moves"):
            perception.fit(last=True, progress_bar=False)

    def test_earlier_images_are_kept_with_a_checkpoint(self, tmp_path: Path):
        agent = tiny_seer().learn(150)
        agent.learn(50, reset_num_timesteps=False, checkpoint=tmp_path / "more.zip")
        assert len(images_of(agent).buffer) == len(agent.trainer.dataset) == 200

    def test_images_are_kept_where_their_checkpoint_was_deleted(self, tmp_path: Path):
        agent = tiny_seer().learn(60, checkpoint=tmp_path / "seer.zip")
        before = images_of(agent).buffer.images.copy()
        (tmp_path / "seer.zip").unlink()
        agent.learn(30, reset_num_timesteps=False, checkpoint=tmp_path / "seer.zip")
        assert len(images_of(agent).buffer) == 90
        np.testing.assert_array_equal(images_of(agent).buffer.images[: len(before)], before)

    def test_one_longer_episode_does_not_set_the_horizon_of_all(self, monkeypatch: pytest.MonkeyPatch):
        seer, windows = images_of(tiny_seer()), list[int]()
        perception = PixelPerception(seer.layout, EncoderConfig(ahead=(1, 2, 4, 8)), 0, "cpu")
        for length in (*[7] * 20, 8):
            perception.buffer.add(
                np.zeros((length + 1, *perception.layout.stacked), np.uint8),
                np.zeros((length + 1, 0), np.float32),
                np.zeros((length, 2), np.float32),
            )

        def recorded_fit(_: PixelEncoder, __: Any, rows: NDArray[np.int64], *___: Any, **____: Any) -> EncoderReport:
            windows.append(len(rows))
            return EncoderReport(1.0, 1.0, 2.0, 1.0, 1.0)

        monkeypatch.setattr("grasp_agent.models.encoder.learning.fit_encoder", recorded_fit)
        perception.fit(last=True, progress_bar=False)
        assert windows == [20 * 4 + 5]  # of 4 steps: all episodes have some

    def test_a_loaded_agent_continues_learning_in_the_same_unit(self, tmp_path: Path):
        tiny_seer().learn(150).save(tmp_path / "seer.zip")
        agent = GraspAgent.load(tmp_path / "seer.zip", env=PIXELS, device="cpu").learn(60)
        assert agent.policy.model is not None
        for group in images_of(agent).unit_groups:
            assert len(set(agent.policy.model.normalizer.std[list(group)].tolist())) == 1

    def test_predictions_can_be_drawn_and_recorded(self, tmp_path: Path):
        agent = tiny_seer().learn(150)
        with gym.make(PIXELS, max_episode_steps=6) as env:
            frames = record_imagination(agent, env, tmp_path / "seen.gif", seed=1, size=64)
            assert frames == 7 == len(iio.imread(tmp_path / "seen.gif"))
            assert imagined(agent, env.reset(seed=1)[0], columns=3, size=40).width == 3 * 46 - 6
        with pytest.raises(ValueError, match="has learned from images"), gym.make(PIXELS) as env:
            record_imagination(tiny(), env, tmp_path / "not.mp4")
        assert not (tmp_path / "not.mp4").exists()

    def test_an_encoder_is_transferred_with_the_model(self, tmp_path: Path):
        one = tiny_seer().learn(150)
        one.save(tmp_path / "one")
        other = GraspAgent.load(tmp_path / "one.zip", device="cpu")
        observation, _ = gym.make(PIXELS).reset(seed=0)
        wanted = one.predict(observation, deterministic=True)[0]
        before = images_of(one).encoded(observation["observation"][None])
        encoder = images_of(other).encoder
        assert encoder is not None
        with torch.no_grad():
            for parameter in encoder.parameters():
                parameter += 0.1
        assert not np.array_equal(images_of(other).encoded(observation["observation"][None]), before)
        other.set_parameters(one.get_parameters())
        np.testing.assert_allclose(images_of(other).encoded(observation["observation"][None]), before, atol=1e-6)
        third = tiny_seer()
        third.set_parameters(tmp_path / "one.zip")
        for agent in (other, third):
            agent.policy.controller.seed = one.policy.controller.seed
            np.testing.assert_allclose(agent.predict(observation, deterministic=True)[0], wanted, atol=1e-5)
