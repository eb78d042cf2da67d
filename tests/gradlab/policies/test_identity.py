"""Two policies have one identity only if they are one function of parameters and observations."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

import gradlab
from gradlab.foundation.files import digest
from gradlab.policies.policy import Policy
from tests.helpers.forked import ROOT

NET = '''
import functools
import torch
from torch import nn

SCALE = 2.0


def inner(x):
    return x + 1


def helper(x, shift=0.5):
    return SCALE * inner(x) + shift


class Base(nn.Module):
    power = 1

    def squeezed(self, x):
        return torch.tanh(x)


def made(width):
    class Net(Base):
        def __init__(self, slope=0.1):
            super().__init__()
            self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 1)
            self.slope = slope

        @functools.cached_property
        def gain(self):
            return 7

        @staticmethod
        def half(x):
            return x / 2

        def forward(self, x):
            """Words."""
            if self.slope in {0.5, 0.25, 0.125}:
                x = -x
            out = self.squeezed(self.first(helper(x))) ** self.power
            return self.second(self.half(width * self.slope * out)) * self.gain

    return Net


Net = made(3)
'''
OTHER = {  # another function, with parameters of the same names and shapes
    "forward": ("x = -x", "x = 2 * x"),
    "a constant": ("SCALE = 2.0", "SCALE = 3.0"),
    "a function": ("SCALE * inner(x)", "SCALE / inner(x)"),
    "a function behind it": ("x + 1", "x + 2"),
    "a default": ("shift=0.5", "shift=0.6"),
    "a base class": ("torch.tanh(x)", "torch.sigmoid(x)"),
    "a class attribute": ("power = 1", "power = 2"),
    "a static method": ("x / 2", "x / 3"),
    "a property": ("return 7", "return 8"),
    "a closure": ("made(3)", "made(4)"),
    "an option": ("slope=0.1", "slope=0.2"),
}
SAME = {
    "words": ('"""Words."""', '"""Other words."""'),
    "a comment": ("return x + 1", "return x + 1  # one more"),
    "layout": ("x / 2", "(x /  2)"),
    "a neighbour": ("SCALE = 2.0", "SCALE = 2.0\nUNUSED = 5"),
}


def identity(module: nn.Module) -> str:
    policy = gradlab.ModulePolicy(module).sized(3, 1)
    return digest(policy.settings())


def in_file(folder: Path, text: str) -> ModuleType:
    """A module of that text, which has sources."""
    path = folder / f"net_{digest(text)}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def typed(folder: Path, text: str) -> ModuleType:
    """The same without sources, as in an interactive session."""
    module = ModuleType("typed")
    exec(compile(text, "<typed>", "exec"), vars(module))  # noqa: S102  (our own)
    return module


@pytest.fixture(autouse=True)
def no_traces() -> Iterator[None]:
    before = set(sys.modules)
    with torch.random.fork_rng(devices=[]):
        yield
    for name in set(sys.modules) - before:
        if name.startswith("net_"):
            del sys.modules[name]


@pytest.mark.parametrize("make", [in_file, typed])
@pytest.mark.parametrize("what", OTHER)
def test_other_code_is_another_policy(tmp_path: Path, what: str, make: Callable) -> None:
    assert NET.count(OTHER[what][0]) == 1
    one, two = (make(tmp_path, text).Net() for text in (NET, NET.replace(*OTHER[what])))
    assert identity(one) != identity(two)


@pytest.mark.parametrize("what", SAME)
def test_what_changes_no_number_is_the_same_policy(tmp_path: Path, what: str) -> None:
    texts = NET, NET.replace(*SAME[what], 1)
    assert texts[0] != texts[1]
    one, two = (in_file(tmp_path, text).Net() for text in texts)
    assert identity(one) == identity(two)  # and with other parameters, which init draws


def test_a_module_of_ones_own_that_is_imported_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = NET.replace("SCALE * inner", "net_beside.factor * inner").replace("SCALE = 2.0", "")
    text = text.replace("import functools", "import functools, net_beside")
    found = []
    for factor in (1, 2):
        beside = ModuleType("net_beside")
        beside.__file__, beside.factor = str(tmp_path / "net_beside.py"), factor
        Path(beside.__file__).write_text(f"factor = {factor}\n")
        monkeypatch.setitem(sys.modules, "net_beside", beside)
        found.append(identity(in_file(tmp_path, text).Net()))
    assert found[0] != found[1]


class Fixed(nn.Module):
    """A parameter that no method draws, one that is not learned, a buffer and an attribute."""

    def __init__(self, own: float = 1.0, held: float = 1.0, buffer: float = 1.0, kept: float = 1.0):
        super().__init__()
        self.linear = nn.Linear(3, 1)
        self.own = nn.Parameter(torch.tensor([own]))
        self.held = nn.Parameter(torch.tensor([held]), requires_grad=False)
        self.register_buffer("buffer", torch.tensor([buffer]))
        self.kept = [torch.tensor([kept])]

    def forward(self, obs: Tensor) -> Tensor:
        return self.linear(obs) * self.own * self.held * self.buffer * self.kept[0]


def test_tensors_that_init_does_not_draw_count() -> None:
    policy = gradlab.ModulePolicy(Fixed(own=0.5)).sized(3, 1)
    drawn = policy.init(torch.Generator().manual_seed(0))
    assert drawn["own"] == 0.5 and drawn["linear.weight"].any()
    assert identity(Fixed()) == identity(Fixed())  # whose linear layers differ
    for name in ("own", "held", "buffer", "kept"):
        assert identity(Fixed(**{name: 2.0})) != identity(Fixed()), name


def plain(norm: float = 1e-5, slope: float = 0.1, act: nn.Module | None = None) -> nn.Module:
    act = nn.LeakyReLU(slope) if act is None else act
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4, eps=norm), act, nn.Linear(4, 1))


def test_options_of_torchs_own_modules_count() -> None:
    others = plain(norm=1e-3), plain(slope=0.2), plain(act=nn.Tanh())
    assert len({identity(each) for each in (plain(), *others)}) == 4
    assert identity(plain()) == identity(plain())


def test_what_is_put_on_a_module_counts() -> None:
    hooked, replaced = plain(), plain()
    hooked.register_forward_hook(lambda module, given, out: 2 * out)
    usual = replaced.forward
    replaced.forward = lambda obs: 2 * usual(obs)
    assert len({identity(each) for each in (plain(), hooked, replaced)}) == 3


@dataclass(frozen=True)
class Doubled(gradlab.GaussianPolicy):
    factor: float = 2.0

    def action(self, latent: Tensor) -> Tensor:
        return self.factor * gradlab.GaussianPolicy.action(self, latent)


@dataclass(frozen=True)
class Offset(gradlab.NetworkPolicy):
    def action(self, latent: Tensor) -> Tensor:
        return gradlab.NetworkPolicy.action(self, latent) + 1


def test_a_subclass_is_another_policy_than_its_base() -> None:
    several: list[Policy] = [gradlab.GaussianPolicy(3, 1), Doubled(3, 1), Doubled(3, 1, factor=3.0)]
    network = gradlab.RecurrentPolicy(4).network
    several += [gradlab.NetworkPolicy(network), Offset(network)]
    assert len({digest(policy.settings()) for policy in several}) == 5
    assert digest(Doubled(3, 1).settings()) == digest(Doubled(3, 1).settings())


@pytest.mark.slow
def test_another_process_finds_the_same_identity(tmp_path: Path) -> None:
    """Whatever order it keeps sets in, with sources and without."""
    for make in (in_file, typed):
        code = (
            "from pathlib import Path; from tests.gradlab.policies.test_identity import *\n"
            f"print(identity({make.__name__}(Path({str(tmp_path)!r}), NET).Net()))"
        )
        for seed in ("1", "2"):
            env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
            done = subprocess.run(
                [sys.executable, "-c", code], check=False, env=env, capture_output=True, text=True
            )
            assert done.stdout.strip() == identity(make(tmp_path, NET).Net()), done.stderr[-500:]
