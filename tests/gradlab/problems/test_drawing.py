"""Noise that is drawn on the device: of the key and the episode's number alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import gradlab
from gradlab.foundation import counters
from gradlab.foundation.errors import BadValue, Unavailable
from gradlab.foundation.noise import Noise
from gradlab.foundation.placement import Placement, drawn_there, placed
from gradlab.gradients.sampling import NOISE_BLOCK, block_generator, noise_stream
from gradlab.problems.problem import Problem
from tests.helpers.toy import toy_problem

PLACES = ["cpu", "device"]


def problem_of(noise: Any, **options: Any) -> Problem:
    return gradlab.make("lq", horizon=2, noise=noise, **{"dtype": torch.float64, **options})


def same(a: Noise, b: Noise) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("place", PLACES)
def test_chunks_do_not_matter(place: str) -> None:
    problem, total = problem_of(place), NOISE_BLOCK + 300
    whole = next(noise_stream(problem, total, 3, total))
    for size, begin in ((257, 0), (NOISE_BLOCK, 0), (3 * NOISE_BLOCK, 0), (100, NOISE_BLOCK - 50)):
        for chunk in noise_stream(problem, total, 3, size, begin):
            assert same(chunk, whole.rows(begin, begin + chunk.count))
            begin += chunk.count
        assert begin == total


@pytest.mark.parametrize("place", PLACES)
def test_blocks_at_once_are_blocks_one_by_one(place: str) -> None:
    problem = problem_of(place)
    both = problem.draw_blocks(5, [block_generator(1, k) for k in (4, 7)])
    for k, rows in ((4, both.rows(0, 5)), (7, both.rows(5, 10))):
        assert same(rows, problem.draw(5, block_generator(1, k)))


def test_what_is_drawn_there_depends_on_the_episode_alone() -> None:
    """Not on how many there are, nor its first steps on the horizon; dtypes see the same."""
    few = problem_of("device").draw(3, block_generator(1, 0))
    many = problem_of("device").draw(8, block_generator(1, 0))
    long = problem_of("device").replace(horizon=5).draw(3, block_generator(1, 0))
    for part in ("action", "process", "seed"):
        assert torch.equal(getattr(few, part), getattr(many, part)[:3])
        if part != "seed":
            assert torch.equal(getattr(few, part), getattr(long, part)[:, :2])
    single = problem_of("device", dtype=torch.float32).draw(3, block_generator(1, 0))
    assert torch.equal(single.action, few.action.float())
    assert few.action.dtype == torch.float64 and single.initial.dtype == torch.float32


def test_parts_have_streams_of_their_own() -> None:
    noise = problem_of("device").draw(64, block_generator(1, 0))
    numbers = torch.cat([noise.action.flatten(), noise.process.flatten()])
    assert len(numbers.unique()) == len(numbers)


def test_segments_too() -> None:
    """Their moments are chosen on the CPU; `noise_from` draws the rest as `draw` does."""
    problem = toy_problem(horizon=4).replace(noise="device")
    moments = problem.start(problem.draw(6, block_generator(1, 0)))
    segment = problem.from_moments(2, moments, bootstrap=False)
    chosen = segment.draw(6, block_generator(2, 0))
    given = segment.noise_from(moments, block_generator(2, 0))
    assert torch.equal(chosen.action, given.action)
    assert segment.start(given).state.equal(moments.state)


def test_the_cpu_keeps_its_stream() -> None:
    """The numbers that every earlier run has seen, in the order in which they were drawn."""
    generator = torch.Generator().manual_seed(5)
    problem = problem_of(None)
    noise = problem.draw(4, torch.Generator().manual_seed(5))
    kwargs: dict[str, Any] = {"generator": generator, "dtype": torch.float64}
    assert torch.equal(noise.initial, problem.task.draw_initial(4, generator))
    assert torch.equal(noise.action, torch.randn(4, 2, 2, **kwargs))
    assert torch.equal(noise.process, torch.randn(4, 2, 4, **kwargs))
    assert torch.equal(noise.seed, torch.randint(2**62, (4,), generator=generator))


def test_the_key_comes_first() -> None:
    """Before what a task draws, which may be more or less from one release to the next."""
    problem = problem_of("device")
    noise = problem.draw(3, torch.Generator().manual_seed(5))
    keys = counters.key(torch.Generator().manual_seed(5))[None]
    assert torch.equal(noise.action, counters.normals(keys, 3, (2, 2), 0))


@pytest.mark.parametrize(
    ("noise", "device", "there"),
    [(None, "cpu", False), (None, "cuda", True), (None, "cuda:1", True), (None, "meta", False),
     ("cpu", "cuda", False), ("device", "cpu", True)],
)  # fmt: skip
def test_where_noise_is_drawn(noise: str | None, device: str, there: bool) -> None:
    assert drawn_there(noise, device) is there


def test_a_wrong_place_is_one_line() -> None:
    with pytest.raises(BadValue, match='noise should be "cpu", "device", or None'):
        problem_of("gpu")
    with pytest.raises(BadValue, match="noise should be"):
        Placement("cpu", "host").check()
    if not torch.cuda.is_available():
        with pytest.raises(Unavailable, match="--device cuda, and torch finds none; try --device"):
            Placement("cuda").check()


@pytest.mark.parametrize("device", ["xpu", "hpu", "meta"])
def test_a_device_that_torch_cannot_use_is_one_line(device: str) -> None:
    """Not an error of torch from within the first cell."""
    with pytest.raises(Unavailable, match=f"--device {device} here.*try --device cpu or"):
        Placement(device).check()


def test_a_run_places_what_is_made_in_it() -> None:
    with placed(Placement("meta", "cpu")):
        inside = gradlab.make("hovering", hidden=(4,))
        other = gradlab.make("hovering", device="cpu", noise="device")
    assert (str(inside.device), inside.noise) == ("meta", "cpu")
    assert (str(other.device), other.noise) == ("cpu", "device")
    assert gradlab.make("hovering").device == "cpu"
