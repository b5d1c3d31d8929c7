"""Memory, descriptors and threads of a process that calls `predict` for long."""

from __future__ import annotations

import sys

import pytest

from benchmarks.endurance import Usage, flat, watch

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def test_episodes_of_a_bundled_model_leave_nothing_behind(capsys: pytest.CaptureFixture[str]):
    found = watch("ball-nav", 600)
    assert [calls for calls, _ in found] == list(range(60, 601, 60))
    assert found[-1][1].descriptors <= found[0][1].descriptors
    assert abs(found[-1][1].threads - found[0][1].threads) <= 1  # one of a search that is suspended
    assert len(capsys.readouterr().out.splitlines()) == 10


@pytest.mark.parametrize(
    ("grown", "steady"),
    [((0, 0, 0), True), ((1, 0, 0), True), ((3, 0, 0), False), ((0, 1, 0), False), ((0, 0, 1), False)],
)
def test_growth_in_the_second_half_is_seen(grown: tuple[float, int, int], steady: bool):
    start = Usage(100.0, 6, 1)
    later = Usage(*(a + b for a, b in zip(start, grown, strict=True)))  # type: ignore[arg-type]
    assert flat([(1, start), (2, start), (3, start), (4, later)]) == steady


@pytest.mark.slow
def test_many_episodes_leave_nothing_behind():
    assert flat(watch("ball-nav", 20_000)) and flat(watch("wall-pixels", 4000))
