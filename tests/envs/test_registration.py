"""Registration with Gymnasium, and what importing the package does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import grasp_envs

ENVS_FOLDER = Path(grasp_envs.__file__).parents[1]


def run_python(code: str) -> str:
    """Output of code in a fresh interpreter, in which every warning is an error."""
    plain = {key: value for key, value in os.environ.items() if key != "MUJOCO_GL"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**plain, "PYTHONPATH": str(ENVS_FOLDER)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_importing_twice_is_silent_and_loads_no_simulator_and_sets_no_variable() -> None:
    code = """
import os, sys
before = dict(os.environ)
import importlib, grasp_envs
importlib.reload(grasp_envs)
assert "mujoco" not in sys.modules
assert dict(os.environ) == before
"""
    assert run_python(code) == ""


def test_an_id_with_the_module_in_front_needs_no_import() -> None:
    code = "import gymnasium as gym; print(gym.make('grasp_envs:grasp/BallNavTrap-v0').spec.max_episode_steps)"
    assert run_python(code) == "100\n"
