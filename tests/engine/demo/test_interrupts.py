import signal

import pytest

from headgate.engine.demo.interrupts import held, interruptible


def test_an_interrupt_inside_is_raised_at_the_end():
    done = []

    def start() -> None:
        with interruptible(), held():
            signal.raise_signal(signal.SIGTERM)
            done.append("the rest")

    with pytest.raises(KeyboardInterrupt):
        start()
    assert done == ["the rest"]


def test_only_the_first_one_interrupts():
    before = signal.getsignal(signal.SIGINT)
    with interruptible():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
