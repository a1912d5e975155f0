import io

import numpy as np
from rich.console import Console

from headgate.engine.demo.loadgen import Progress
from headgate.engine.demo.server import CONTROLS
from headgate.engine.demo.session import Stage, Tick
from headgate.engine.demo.view import PlainView, Window, frame, open_view

BUSY = Progress(
    3.0, (4, 2, 0), np.array([0, 0, 0, 1]), np.array([0.05, 0.2, 0.01, 0.05]), np.array([200, 200, 503, 200])
)


def test_the_window_counts_misses(plan):
    window = Window(3)
    window.add(BUSY, plan.slos.tolist())
    assert window.sent == [4, 2, 0]
    assert window.missed == [2, 0, 0]  # one late, one refused
    assert window.p95(2) is None


def test_lines_where_there_is_no_terminal(plan):
    text = io.StringIO()
    with open_view(Console(file=text, width=200)) as view:
        assert isinstance(view, PlainView)
        view.plan(plan)
        view.show(Stage("run: headgate"))
        for second in range(12):
            view.show(Tick(CONTROLS[-1], Progress(float(second), (1, 0, 0), *(np.array([]),) * 3), None))
    lines = text.getvalue().splitlines()
    assert lines[0] == "run: headgate"
    assert len(lines) == 3  # after 5 and 10 seconds


def test_a_frame_shows_every_pipeline(plan):
    window = Window(3)
    window.add(BUSY, plan.slos.tolist())
    text = io.StringIO()
    Console(file=text, width=160).print(frame("run: headgate", plan, Tick(CONTROLS[-1], BUSY, None), window))
    assert all(name in text.getvalue() for name in plan.names)
    flooding = Progress(4.0, *(getattr(BUSY, name) for name in ("sent", "regions", "latencies", "status")))
    text = io.StringIO()
    Console(file=text, width=160).print(frame("run: headgate", plan, Tick(CONTROLS[-1], flooding, None), window))
    assert "b floods the server" in text.getvalue()
