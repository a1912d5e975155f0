"""Run with: python test___MODULE__.py, or with pytest."""

import tempfile
from pathlib import Path

from __MODULE__ import Settings, Source

from headgate.core.observation import checked


def test_rates_become_samples():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rates.json")
        path.write_text('{"us-east": 12.5, "other": 1}')
        source = Source(Settings(url=path.as_uri()), ("us-east", "eu-west"))
        (sample,) = source.read(1000.0)
        source.close()
    assert checked(sample, ("us-east", "eu-west")).arrivals == 12.5


if __name__ == "__main__":
    test_rates_become_samples()
    print("ok")
