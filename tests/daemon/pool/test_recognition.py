from __future__ import annotations

from ccd_daemon.pool.recognition import ADVICE, Miss, Recognition


def missed(recognition: Recognition, *places: str) -> Miss:
    before = recognition.missed.copy()
    recognition.came(places, None)
    (why,) = recognition.missed - before
    return why


def test_a_beginning_is_no_miss() -> None:
    recognition = Recognition()
    recognition.came((), None)
    assert recognition.report() == {"recognised": 0, "rebuilt": 0, "missed": []}


def test_every_miss_has_its_reason() -> None:
    recognition = Recognition()
    for name, parted in (("a", "evicted"), ("b", "max_idle_s"), ("c", "parked_tool_s"), ("d", None)):
        recognition.stands(f"o:f:{name}")
        recognition.left(f"o:f:{name}", parted)
    assert missed(recognition, "o:f:a") is Miss.EVICTED
    assert missed(recognition, "o:f:b") is Miss.IDLE
    assert missed(recognition, "o:f:c") is Miss.DEADLINE
    assert missed(recognition, "o:f:d") is Miss.ENDED
    recognition.left("o:f:e", Miss.SPOILT)
    assert missed(recognition, "o:f:e") is Miss.SPOILT
    recognition.stands("o:f:g")
    assert missed(recognition, "o:f:g") is Miss.RESULTS
    recognition.came(("o:f:g",), "o:f:g")
    assert recognition.recognised == 1
    assert missed(recognition, "o:f:g") is Miss.BRANCHED
    assert missed(recognition, "o:f:new", "o:f:g") is Miss.BRANCHED
    assert missed(recognition, "o:other:g") is Miss.CHANGED
    assert missed(recognition, "o:f:never") is Miss.UNKNOWN
    assert missed(recognition, "stranger:f:g") is Miss.UNKNOWN  # whose conversations are not told of
    report = recognition.report()
    assert report["rebuilt"] == sum(recognition.missed.values())
    assert set(ADVICE) == set(Miss)


def test_the_first_reason_stays() -> None:
    recognition = Recognition()
    recognition.stands("o:f:a")
    recognition.left("o:f:a", "evicted")
    recognition.left("o:f:a", None)
    assert missed(recognition, "o:f:a") is Miss.EVICTED


def test_what_is_remembered_is_bounded() -> None:
    recognition = Recognition()
    for number in range(30_000):
        recognition.stands(f"o:f:{number}")
    assert missed(recognition, "o:f:0") is Miss.UNKNOWN
    assert missed(recognition, "o:f:29999") is Miss.RESULTS
