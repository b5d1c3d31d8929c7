"""Experience that is already there: what was recorded comes back as it was."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from agents import tiny
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3 import SAC, HerReplayBuffer
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer

from grasp_agent import ExploreConfig, Goal, GraspAgent, MLPConfig, TrainConfig
from grasp_agent.replay.episodes import Episode
from grasp_agent.replay.offline import episodes_of
from grasp_agent.task.observation import raw_vectors

BOX = spaces.Box(-10, 10, (2,), np.float32)
ACTIONS = spaces.Box(np.array([-1, 2], np.float32), np.array([3, 4], np.float32))


def raw(observations: Any) -> NDArray[np.float32]:
    """A Box observation that is its own achieved goal."""
    if isinstance(observations, dict):
        return raw_vectors(observations)
    return np.concatenate([observations, observations[:, :1]], -1).astype(np.float32)


def script(lengths: list[int], seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Episodes of states `[T + 1, 2]` and actions in [-1, 1] `[T, 2]`."""
    rng = np.random.default_rng(seed)
    return [
        (rng.normal(size=(n + 1, 2)).astype(np.float32), rng.uniform(-1, 1, (n, 2)).astype(np.float32)) for n in lengths
    ]


def filled(size: int, lengths: list[list[int]], **settings: Any) -> tuple[ReplayBuffer, list[list[Any]]]:
    """A buffer of several environments, filled as Stable-Baselines3's algorithms do."""
    played = [script(row, seed) for seed, row in enumerate(lengths)]
    buffer = ReplayBuffer(size * len(lengths), BOX, ACTIONS, n_envs=len(lengths), **settings)
    steps = [
        [
            (states[t], states[t + 1], actions[t], t == len(actions) - 1)
            for states, actions in row
            for t in range(len(actions))
        ]
        for row in played
    ]
    for moment in zip(*steps, strict=True):
        before, after, action, done = map(np.array, zip(*moment, strict=True))
        buffer.add(before, after, action, np.zeros(len(lengths)), done, [{} for _ in lengths])
    return buffer, played


def same(found: list[Episode], played: list[Any]) -> None:
    assert len(found) == len(played)
    for episode, (states, actions) in zip(found, played, strict=True):
        np.testing.assert_array_equal(episode.states[:, :2], states)
        np.testing.assert_array_equal(episode.states[:, 2], states[:, 0])
        np.testing.assert_array_equal(episode.actions, actions)


def test_a_buffer_gives_back_the_episodes_of_every_environment():
    buffer, played = filled(50, [[3, 7, 5], [8, 2, 5]])
    same(episodes_of(buffer, ACTIONS, raw), [*played[0], *played[1]])


def test_a_buffer_that_has_wrapped_around_begins_with_its_oldest_step():
    buffer, played = filled(10, [[4, 4, 4]])
    assert buffer.full
    found = episodes_of(buffer, ACTIONS, raw)
    states, actions = played[0][0]
    same(found, [(states[2:], actions[2:]), *played[0][1:]])


def test_where_only_states_are_kept_the_last_step_of_an_episode_is_lost():
    buffer, played = filled(50, [[3, 7]], optimize_memory_usage=True, handle_timeout_termination=False)
    found = episodes_of(buffer, ACTIONS, raw)
    same(found, [(states[:-1], actions[:-1]) for states, actions in played[0]])


def test_where_only_states_are_kept_and_the_buffer_has_wrapped_around_no_step_is_invented():
    buffer, played = filled(8, [[5, 5, 5]], optimize_memory_usage=True, handle_timeout_termination=False)
    true = {(tuple(s[t]), tuple(a[t]), tuple(s[t + 1])) for s, a in played[0] for t in range(len(a))}
    found = episodes_of(buffer, ACTIONS, raw)
    assert found
    for episode in found:
        for t, action in enumerate(episode.actions):
            assert (tuple(episode.states[t, :2]), tuple(action), tuple(episode.states[t + 1, :2])) in true


def test_a_file_holds_actions_in_the_environments_units(tmp_path: Path):
    played = script([3, 6])
    before, after = (np.concatenate([states[cut] for states, _ in played]) for cut in (slice(None, -1), slice(1, None)))
    actions = np.concatenate([actions for _, actions in played])
    units = ACTIONS.low + (actions + 1) / 2 * (ACTIONS.high - ACTIONS.low)
    np.savez(tmp_path / "steps.npz", observations=before, next_observations=after, actions=units)
    found = episodes_of(str(tmp_path / "steps.npz"), ACTIONS, raw)
    assert [len(episode.actions) for episode in found] == [3, 6]
    for episode, (states, scaled) in zip(found, played, strict=True):
        np.testing.assert_array_equal(episode.states[:, :2], states)
        np.testing.assert_allclose(episode.actions, scaled, atol=1e-6)


def test_a_file_of_a_goal_environment_holds_achieved_goals(tmp_path: Path):
    (states, actions), *_ = script([4])
    goals = 3 * states[:, :1]
    held = {"observations": states[:-1], "next_observations": states[1:], "achieved_goal": goals[:-1]}
    np.savez(tmp_path / "steps.npz", actions=np.clip(actions, 2, 3), next_achieved_goal=goals[1:], **held)  # type: ignore[arg-type]
    (episode,) = episodes_of(tmp_path / "steps.npz", ACTIONS, raw)
    np.testing.assert_array_equal(episode.states, np.concatenate([states, goals], -1))


def test_a_minari_dataset_is_read_by_its_own_interface():
    (states, _), (more, _) = script([4, 2])
    units = np.array([[-1.0, 2.0], [3.0, 4.0], [1.0, 3.0], [1.0, 3.0]])
    recorded = [
        SimpleNamespace(observations=states, actions=units),
        SimpleNamespace(observations=more, actions=units[:2]),
    ]
    found = episodes_of(SimpleNamespace(iterate_episodes=lambda: iter(recorded)), ACTIONS, raw)
    np.testing.assert_array_equal(found[0].actions, [[-1, -1], [1, 1], [0, 0], [0, 0]])
    np.testing.assert_array_equal(found[1].states[:, :2], more)


def test_a_source_without_episodes_is_refused(tmp_path: Path):
    (tmp_path / "text.npz").write_text("no")
    np.savez(tmp_path / "little.npz", observations=np.zeros((3, 2)))
    np.savez(tmp_path / "pickle.npz", observations=np.array([{}]), next_observations=1, actions=1)
    uneven = {"observations": np.zeros((3, 2)), "next_observations": np.zeros((4, 2)), "actions": np.full((3, 2), 2.5)}
    np.savez(tmp_path / "uneven.npz", **uneven)  # type: ignore[arg-type]
    np.savez(tmp_path / "wide.npz", **{**uneven, "next_observations": np.zeros((3, 2)), "actions": np.zeros((3, 5))})  # type: ignore[arg-type]
    np.save(tmp_path / "single.npy", np.zeros((3, 2)))
    (tmp_path / "empty.npz").write_bytes(b"")
    np.savez(tmp_path / "cut.npz", **uneven)  # type: ignore[arg-type]
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:300])
    bad = {
        "single.npy": "not an .npz file of arrays: it holds a single array",
        "empty.npz": "not an .npz file of arrays",
        "cut.npz": "not an .npz file of arrays",
        "text.npz": "not an .npz file",
        "missing.npz": "missing.npz: .*no such file",
        "pickle.npz": "not an .npz file of arrays",
        "little.npz": "expected arrays observations, next_observations and actions",
        "uneven.npz": "of one length",
        "wide.npz": r"actions of shape \[M, 2\], got \[3, 5\]",
    }
    for name, words in bad.items():
        with pytest.raises(ValueError, match=words):
            episodes_of(tmp_path / name, ACTIONS, raw)
    with pytest.raises(ValueError, match=r"expected a replay buffer .* got int"):
        episodes_of(3, ACTIONS, raw)
    with pytest.raises(ValueError, match="at least one step, got none"):
        episodes_of(ReplayBuffer(10, BOX, ACTIONS), ACTIONS, raw)


def test_a_goal_environments_experience_needs_its_achieved_goals(tmp_path: Path):
    (states, actions), *_ = script([4])
    np.savez(tmp_path / "bare.npz", observations=states[:-1], next_observations=states[1:], actions=0 * actions)
    with pytest.raises(ValueError, match="expected achieved goals in addition to the observations"):
        tiny().fit(str(tmp_path / "bare.npz"))


def test_actions_out_of_bounds_are_clipped_with_a_warning(tmp_path: Path):
    (states, _), *_ = script([4])
    units = np.array([[-1.0, 2.0], [3.0, 4.0], [1.0, 9.0], [1.0, 4.0 + 1e-6]])
    np.savez(tmp_path / "steps.npz", observations=states[:-1], next_observations=states[1:], actions=units)
    with pytest.warns(UserWarning, match="25 % of its actions are out of bounds"):
        (episode,) = episodes_of(tmp_path / "steps.npz", ACTIONS, raw)
    np.testing.assert_allclose(episode.actions, [[-1, -1], [1, 1], [0, 1], [0, 1]], atol=1e-5)


def quick(env: Any, **settings: Any) -> GraspAgent:
    return GraspAgent(
        "MultiInputPolicy",
        env,
        model=MLPConfig(members=2, width=64, depth=2),
        train=TrainConfig(gradient_steps=900, batch_size=256),
        explore=ExploreConfig(learning_starts=400),
        seed=0,
        device="cpu",
        **settings,
    )


@pytest.mark.parametrize("kind", [HerReplayBuffer, pytest.param(DictReplayBuffer, marks=pytest.mark.slow)])
def test_an_agent_learns_from_the_replay_buffer_of_sac(kind: type[DictReplayBuffer]):
    sac = SAC(
        "MultiInputPolicy", "grasp/BallNav-v0", replay_buffer_class=kind, learning_starts=10_000, seed=0, device="cpu"
    )
    sac.learn(1200)
    assert isinstance(sac.replay_buffer, kind)
    agent = quick("grasp/BallNav-v0").fit(sac.replay_buffer)
    assert len(agent.trainer.dataset) == 1200
    world, report = agent.policy.world, agent.trainer.report
    assert world is not None and report is not None
    assert report.error_mean < 0.5 * float(world.model.scale.norm())  # of a typical step


def test_what_is_learned_later_is_added_to_what_was_there():
    agent, played = quick("Pendulum-v1", goal=Goal.at({0: 1.0}, tolerance=0.1)), script([200])
    states = np.repeat(played[0][0], 2, axis=1)[:, :3]
    episode = Episode(np.concatenate([states, states[:, :1]], -1), played[0][1][:, :1])
    agent.fit([episode])
    assert agent.policy.world is not None
    assert agent.num_timesteps == 0
    agent.trainer._train = TrainConfig(gradient_steps=10)
    agent.learn(200)
    assert len(agent.trainer.dataset) == 400
    with pytest.raises(ValueError, match=r"sizes \(4, 1\), got \(3, 2\)"):
        agent.fit([Episode(np.zeros((3, 3), np.float32), np.zeros((2, 2), np.float32))])


def test_minari_itself_is_read_where_it_is_installed():
    minari = pytest.importorskip("minari")
    env = minari.DataCollector(gym.make("Pendulum-v1"), record_infos=False)
    for seed in range(2):
        env.reset(seed=seed)
        for _ in range(200):
            env.step(env.action_space.sample())
    dataset = env.create_dataset("grasp/tests-v0")
    found = episodes_of(dataset, gym.make("Pendulum-v1").action_space, raw)  # type: ignore[arg-type]
    minari.delete_dataset("grasp/tests-v0")
    assert [len(episode.actions) for episode in found] == [200, 200]


@pytest.mark.parametrize(("low", "high"), [(-4, 4), (0, 10), (-30, -10)])
def test_a_buffer_of_actions_in_the_environments_units_is_refused(low: float, high: float):
    space = spaces.Box(low, high, (2,), np.float32)
    buffer = ReplayBuffer(8, BOX, space, handle_timeout_termination=False)
    for action in (space.low, space.high, (space.low + space.high) / 2):
        buffer.add(np.zeros(2), np.zeros(2), action, np.zeros(1), np.zeros(1), [{}])
    with pytest.raises(ValueError, match=r"dataset: expected actions in \[-1, 1\].*got"):
        episodes_of(buffer, space, raw)


def trajectories(lengths: list[int]) -> tuple[dict[str, np.ndarray], list[Any]]:
    """The arrays of a file of OGBench, in which the last state of a trajectory has an action too; and the episodes."""
    played = script([n + 1 for n in lengths])
    actions = np.concatenate([actions for _, actions in played])
    held = {
        "observations": np.concatenate([states[:-1] for states, _ in played]),
        "actions": ACTIONS.low + (actions + 1) / 2 * (ACTIONS.high - ACTIONS.low),
        "terminals": np.concatenate([np.arange(n + 1) == n for n in lengths]),
        "qpos": np.zeros((sum(lengths) + len(lengths), 7)),
    }
    return held, [(states[:-1], actions[:-1]) for states, actions in played]


def test_a_file_of_ogbench_holds_trajectories_whose_last_action_leads_nowhere(tmp_path: Path):
    held, played = trajectories([3, 6])
    np.savez_compressed(tmp_path / "data.npz", **held)  # type: ignore[arg-type]
    found = episodes_of(tmp_path / "data.npz", ACTIONS, raw)
    assert [len(episode.actions) for episode in found] == [3, 6]
    for episode, (states, actions) in zip(found, played, strict=True):
        np.testing.assert_array_equal(episode.states, np.concatenate([states, states], -1))
        np.testing.assert_allclose(episode.actions, actions, atol=1e-6)
        assert not episode.terminated


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"terminals": np.zeros(5)}, "the last of them 1"),
        ({"terminals": np.array([0, 0.5, 0, 0, 1])}, "terminals of 0 or 1"),
        ({"terminals": np.ones((5, 1))}, "terminals of 0 or 1"),
        ({"terminals": np.ones(4)}, "one length"),
        ({"terminals": np.ones(5)}, "at least one step"),
        ({"observations": None}, "misses observations"),
        ({"actions": None}, "misses actions"),
        ({"actions": np.full((5, 2), np.nan)}, "finite"),
        ({"observations": np.full((5, 2), np.inf)}, "not finite"),
        ({"observations": np.array([[{}]] * 5)}, "numbers"),
    ],
)
def test_a_damaged_file_of_ogbench_is_refused_in_one_line(
    change: dict[str, np.ndarray | None], message: str, tmp_path: Path
):
    held = {name: value for name, value in {**trajectories([4])[0], **change}.items() if value is not None}
    np.savez(tmp_path / "data.npz", **held)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message) as caught:
        episodes_of(tmp_path / "data.npz", ACTIONS, raw)
    assert "\n" not in str(caught.value)


def test_a_file_of_ogbench_is_refused_where_the_achieved_goal_is_not_the_observation(tmp_path: Path):
    agent = GraspAgent("MultiInputPolicy", "grasp/PointMaze-v0")
    np.savez(tmp_path / "data.npz", observations=np.zeros((3, 4)), actions=np.zeros((3, 2)), terminals=[0, 0, 1])
    with pytest.raises(ValueError, match=r"achieved goal and action of sizes \(6, 2\), got \(8, 2\)"):
        agent.fit(tmp_path / "data.npz")
