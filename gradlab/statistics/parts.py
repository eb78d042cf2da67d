"""Which parameters statistics are about: all, a layer's, a leaf's."""

from __future__ import annotations

from collections.abc import Iterable

ALL = "all"  # the part that holds every parameter


def parts(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Everything, each layer of several leaves, each leaf: {part: names of its leaves}.

    The layer of "layers.0.weight" is "layers.0".
    """
    names = tuple(names)
    layers: dict[str, tuple[str, ...]] = {}
    for name in names:
        layer = name.rpartition(".")[0]
        if layer:
            layers[layer] = (*layers.get(layer, ()), name)
    several = {layer: leaves for layer, leaves in layers.items() if len(leaves) > 1}
    return {ALL: names, **several, **{name: (name,) for name in names}}
