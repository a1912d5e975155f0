"""What a recipe is: PromQL for each field of a sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Recipe:
    """PromQL for each field of a sample, and the label of its results that names the pipeline.

    In a query, $names is a regular expression of the pipelines' names at the host, $services one of the services in
    names like "namespace/service/component" (either is ".+" where there are too many), $window the range of the rates,
    $match further matchers from the settings, $share (0 to 1) the share of a percentile. `age` is the number of
    seconds since the newest sample was scraped; without it none of the other answers is believed.
    """

    label: str
    queries: Mapping[str, str]
