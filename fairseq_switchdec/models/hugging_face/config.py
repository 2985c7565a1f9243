"""A model's config.json, read with a message for all that a user may meet."""

from __future__ import annotations

import math
from typing import Any

from ...errors import UserError


class Config:
    """The values of a config.json, or what stands for it in a GGUF file.

    Args:
        path: the file, for messages.
    """

    def __init__(self, path: str, values: dict[str, Any]):
        self.path = path
        self.values = values

    def refuse(self, key: str, reason: str) -> UserError:
        """The error about a key."""
        return UserError(f"{self.path}: {key} is {self.values.get(key)!r}, {reason}")

    def get(self, key: str, default: Any = None) -> Any:
        """The value, where the file has one other than null."""
        value = self.values.get(key)
        return default if value is None else value

    def size(self, key: str, default: int | None = None) -> int:
        """A whole number above 0.

        Raises:
            UserError: it is something else, or is missing and has no default.
        """
        value = self.get(key, default)
        if value is None:
            raise UserError(f"{self.path} has no {key}: name the folder of a complete model")
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.refuse(key, "not a whole number above 0: is the file damaged?")
        return value

    def number(self, key: str, default: float = 0.0) -> float:
        """A number, 0 or above."""
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise self.refuse(key, "not a number that is 0 or above: is the file damaged?")
        return float(value)

    def positive(self, key: str, default: float = 0.0) -> float:
        """A number above 0."""
        value = self.number(key, default)
        if value == 0:
            raise self.refuse(key, "not above 0: is the file damaged?")
        return value

    def table(self, key: str) -> dict[str, Any]:
        """Names and values; none where there are none."""
        value = self.get(key, {})
        if not isinstance(value, dict):
            raise self.refuse(key, "not names and values in braces: is the file damaged?")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """Yes or no."""
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise self.refuse(key, "neither true nor false: is the file damaged?")
        return value

    def choice(self, key: str, choices: dict[str, str], default: str | None = None) -> str:
        """Our word for one of theirs.

        Raises:
            UserError: there is none.
        """
        value = self.get(key, default)
        if not isinstance(value, str) or value not in choices:
            raise self.refuse(key, f"which is not built; only {', '.join(choices)} are")
        return choices[value]

    def only(self, key: str, value: Any, reason: str = "which is not built") -> None:
        """Refuse all other values; a missing one is taken for this one.

        Raises:
            UserError: naming the key.
        """
        if self.get(key, value) != value:
            raise self.refuse(key, f"{reason}: only {value!r} is; import another model")

    def token(self, key: str, size: int) -> int | None:
        """A token's id, the first where there are several; None where there is none (missing, null, -1).

        Args:
            size: V, which ids are below.

        Raises:
            UserError: no such row.
        """
        value = self.get(key)
        if isinstance(value, list):
            value = value[0] if value else None
        if value is None or value == -1:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < size:
            raise self.refuse(key, f"no token of the {size:,} that the embedding has: mend the file")
        return value
