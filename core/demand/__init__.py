"""What each pipeline needs, learned from what was seen of it: arrival rate as a distribution, CPU seconds per request.

    Sample -> arrivals.Counter -> Seen -> forecast.*  a point: the rate expected over a coming window
                                          margin.Margin  wraps a forecaster: a distribution, from its own past errors
                                          select.Best    wraps several of those: the one that errs least, now
                      -> bursts.Bursts    how much burstier than Poisson the requests arrive
    Sample -> cost.Cost                                   CPU seconds per request, apart from the idle base load
    together.turn  one turn of an estimator for all pipelines: what decide() calls
    learned.Learned composes both into an Estimator; `default_estimator` is what decisions use unless told otherwise.

All of them are pure values, and so are their states: a decision can be stored, replayed and explained.
"""

from headgate.core.demand.learned import Estimator, Learned, default_estimator
from headgate.core.demand.together import Together, turn

__all__ = ["Estimator", "Learned", "Together", "default_estimator", "turn"]
