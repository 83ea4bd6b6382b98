"""What is kept of the most recently used values."""

from forclip.server.recent import Recent


def test_the_last_used_are_kept() -> None:
    recent: Recent[int] = Recent(2)
    for key, value in (("a", 1), ("b", 2)):
        recent.put(key, value)
    assert recent.get("a", lambda: 0) == 1
    recent.put("c", 3)
    assert [recent.has(key) for key in "abc"] == [True, False, True]


def test_values_of_another_object_are_forgotten() -> None:
    recent: Recent[int] = Recent(9)
    first, second = [0], [0]  # equal, but two
    assert recent.get("a", lambda: 1, of=first) == 1
    assert recent.get("a", lambda: 2, of=first) == 1
    assert recent.get("b", lambda: 3, of=second) == 3
    assert not recent.has("a", of=second)
    recent.put("late", 4, of=first)
    assert not recent.has("late", of=second), "it was made of what others have left behind"


def test_what_is_made_while_others_move_on_is_given_but_not_kept() -> None:
    recent: Recent[int] = Recent(9)
    first, second = object(), object()

    def slowly() -> int:
        recent.get("b", lambda: 2, of=second)
        return 1

    assert recent.get("a", slowly, of=first) == 1
    assert not recent.has("a", of=second)
    assert recent.has("b", of=second)
