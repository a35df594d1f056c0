"""Which text a value of a method's entry comes from.

A method's entry is merged from layers: config/methods.yaml, then the study's override, or the
grid's instead, then what a trial changes. A message about a value names the last layer that sets
it, because that is the text to correct. Standard library only.
"""

from collections.abc import Iterable
from typing import NamedTuple

FILE = "config/methods.yaml"
Place = tuple[str, str]  # file, key


class Layer(NamedTuple):
    """Values of a method's entry from one text.

    Attributes:
        file: The file that they stand in.
        key: Their key in this file.
        values: A part of an entry.
    """

    file: str
    key: str
    values: dict

    def sets(self, path: tuple[str, ...]) -> bool:
        """Whether the layer has a value at a path, such as ("options", "alpha")."""
        node: object = self.values
        for name in path:
            if not isinstance(node, dict) or name not in node:
                return False
            node = node[name]
        return True


class Origin:
    """Where the values of a merged entry come from.

    Args:
        layers: The texts that the entry is merged from; a later one wins. The first is the entry
            in config/methods.yaml.
    """

    def __init__(self, layers: Iterable[Layer]):
        self._layers = list(layers)

    def sets(self, *path: str) -> bool:
        """Whether any text sets a value."""
        return any(layer.sets(path) for layer in self._layers)

    def place(self, *path: str) -> Place:
        """File and key of a value; its key in config/methods.yaml if no text sets it."""
        layer = self._layers[self._level(path)]
        return layer.file, ".".join([layer.key, *path])

    def of_part(self, part: str) -> Place:
        """File and key of `options` or `optimizer`, in the text that names the module."""
        layer = self._layers[self._level((part, "module"))]
        return layer.file, f"{layer.key}.{part}"

    def is_newer(self, path: tuple[str, ...], than: tuple[str, ...]) -> bool:
        """Whether the value at a path comes from a later layer than the value at another one."""
        return self._level(path) > self._level(than)

    def _level(self, path: tuple[str, ...]) -> int:
        """The number of the last layer that sets a value; 0 if none does."""
        levels = [number for number, layer in enumerate(self._layers) if layer.sets(path)]
        return levels[-1] if levels else 0


def entry_origin(name: str, entry: dict) -> Origin:
    """The origin of an entry that is used as config/methods.yaml has it."""
    return Origin([Layer(FILE, name, entry)])
