from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from headgate.controller.backtest.service import parse_law, read_measured
from headgate.core.config import SettingsError


@pytest.mark.parametrize(
    ("text", "mean", "deviation"),
    [
        ("constant:150ms", 0.15, 0.0),
        ("exponential:0.2", 0.2, 0.2),
        # The reference law: mean 154.3 ms.
        ("lognormal:79.3ms,68.6ms,0.4225", 0.1543, 0.075 * math.sqrt(math.expm1(0.4225**2))),
    ],
)
def test_laws_have_their_mean_and_deviation(text: str, mean: float, deviation: float) -> None:
    law = parse_law(text)
    assert law.mean == pytest.approx(mean, rel=1e-3)
    assert law.deviation == pytest.approx(deviation, rel=1e-3)
    drawn = law.sample(np.random.default_rng(5), 200_000)
    assert drawn.mean() == pytest.approx(mean, rel=0.01)
    assert drawn.std() == pytest.approx(deviation, rel=0.02, abs=1e-12)


@pytest.mark.parametrize(
    "text", ["", "constant", "constant:x", "uniform:1", "constant:0", "lognormal:1,2", "lognormal:1,2,x"]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"constant|duration|0 seconds|sigma"):
        parse_law(text)


def test_measured_times_are_drawn_from(tmp_path: Path) -> None:
    path = tmp_path / "service.csv"
    path.write_text("pipeline,seconds\na,0.1\nb,0.5\na,0.3\n")
    laws = read_measured(str(path))
    assert laws["a"].mean == pytest.approx(0.2)
    assert set(laws["a"].sample(np.random.default_rng(0), 100).tolist()) == {0.1, 0.3}
    path.write_text("pipeline,seconds\na,0.1\na,-1\n")
    with pytest.raises(SettingsError, match=r"service\.csv:3: seconds"):
        read_measured(str(path))
