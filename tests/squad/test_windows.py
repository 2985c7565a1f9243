"""Windows of long contexts: no gap, no overflow, and each token counts where it has most context."""

from __future__ import annotations

import numpy as np
import pytest

from fairseq_switchdec.errors import UserError
from fairseq_switchdec.squad.windows import SPECIALS, WindowOptions, build_input, context_offset, cut_windows


@pytest.mark.parametrize("context", [0, 1, 15, 16, 17, 20, 40, 101])
@pytest.mark.parametrize("stride", [1, 4, 5, 9])
def test_every_token_counts_once_where_it_has_most_context(context: int, stride: int) -> None:
    options = WindowOptions(window=26, stride=stride, question=6)
    windows = cut_windows(context, 99, options)  # a longer question is cut
    assert windows[0].begin == 0 and windows[-1].end == context
    assert all(window.end - window.begin + 6 + SPECIALS <= 26 for window in windows)
    assert all(window.begin <= window.best_begin <= window.best_end <= window.end for window in windows)
    for token in range(context):
        rooms = [
            min(token - window.begin, window.end - 1 - token) if window.begin <= token < window.end else -1
            for window in windows
        ]
        chosen = [index for index, w in enumerate(windows) if w.best_begin <= token < w.best_end]
        assert len(chosen) == 1 and rooms[chosen[0]] == max(rooms)


def test_a_hundred_thousand_words() -> None:
    windows = cut_windows(100_000, 10, WindowOptions())
    assert len(windows) == 1 + -(-(100_000 - 498) // 128)
    assert sum(window.best_end - window.best_begin for window in windows) == 100_000


def test_the_input() -> None:
    built = build_input(np.array([7, 8], dtype=np.int32), np.array([9], dtype=np.int32), bos=0, eos=2)
    assert built.tolist() == [0, 7, 8, 2, 2, 9, 2] and built.dtype == np.int64
    assert built[context_offset(2)] == 9


@pytest.mark.parametrize("options", [WindowOptions(50, 10, 40), WindowOptions(50, 0, 4), WindowOptions(50, 10, 0)])
def test_options_that_leave_no_room(options: WindowOptions) -> None:
    with pytest.raises(UserError, match="--squad-"):
        options.check()
    WindowOptions(50, 6, 40).check()
