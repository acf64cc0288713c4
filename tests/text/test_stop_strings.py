from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nanocupy.text import StopStrings

MARKUP = ("<x>", "<end>")
stops = st.lists(st.text(alphabet="ab\n", min_size=1, max_size=4), max_size=4)
texts = st.lists(st.text(alphabet="abc\n", max_size=4), max_size=12)


def cut(text: str, stops: list[str]) -> tuple[str, str | None]:
    """The rule, letter by letter: the stop that is complete first, of those the longest."""
    for end in range(len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            stop = max(complete, key=len)
            return text[: end - len(stop)], stop
    return text, None


def run(pieces: list[str], stops: list[str]) -> tuple[list[str], str | None]:
    watch = StopStrings(stops)
    shown = []
    for piece in pieces:
        text, stopped = watch.feed(piece)
        shown.append(text)
        if stopped is not None:
            assert watch.feed("more") == ("", stopped)
            return [*shown, watch.finish()], stopped
    return [*shown, watch.finish()], None


@given(texts, stops)
def test_what_is_shown_is_the_cut_text_however_it_is_cut_up(
    pieces: list[str], stops: list[str]
) -> None:
    text = "".join(pieces)
    for pieces_of_it in (pieces, list(text), [text]):
        shown, stopped = run(pieces_of_it, stops)
        assert ("".join(shown), stopped) == cut(text, stops)


@given(texts, stops)
def test_only_the_beginning_of_a_stop_is_held_back(pieces: list[str], stops: list[str]) -> None:
    watch, seen = StopStrings(stops), ""
    for piece in pieces:
        text, stopped = watch.feed(piece)
        seen += piece
        if stopped:
            return
        held = watch._held
        assert held == "" or any(stop.startswith(held) and stop != held for stop in stops)
        assert not text.endswith(tuple(stops) or ("\0",))


pieces_and_markup = st.lists(
    st.sampled_from(["a", "b", "ab", "<x", "<x>", "<end>", "\n"]).flatmap(
        lambda text: st.tuples(st.just(text), st.just(text in MARKUP) | st.just(False))
    ),
    max_size=10,
)
spelled_stops = st.lists(
    st.lists(st.sampled_from(["a", "b", "<x>", "<end>", "\n"]), min_size=1, max_size=3).map(
        "".join
    ),
    max_size=3,
)


def spelled_cut(pieces: list[tuple[str, bool]], stops: list[str]) -> tuple[str, str | None]:
    """The rule, letter by letter, for pieces of which some are hidden."""
    whole = [(letter, hidden) for text, hidden in pieces for letter in text]
    for end in range(len(whole) + 1):
        spelled = "".join(letter for letter, _ in whole[:end])
        at = [i for i, (_, hidden) in enumerate(whole[:end]) if not hidden]
        shown = "".join(whole[i][0] for i in at)
        found = []
        for stop in stops:
            if any(text in stop for text in MARKUP):
                if spelled.endswith(stop):
                    found.append((end - len(stop), stop))
            elif shown.endswith(stop) and at[-1:] == [end - 1]:
                found.append((at[-len(stop)], stop))
        if found:
            start, stop = min(found)
            return "".join(letter for letter, hidden in whole[:start] if not hidden), stop
    return "".join(letter for letter, hidden in whole if not hidden), None


@given(pieces_and_markup, spelled_stops)
@example([("a", False), ("<x>", True), ("b", False)], ["ab"])
@example([("a", False), ("<x>", True), ("b", False)], ["a<x>b"])
@example([("a", False), ("<x>", True), ("<end>", True)], ["a<x>\n", "<end>"])
def test_stops_that_spell_markup_match_it(pieces: list[tuple[str, bool]], stops: list[str]) -> None:
    watch, shown, stopped = StopStrings(stops, MARKUP), "", None
    for text, hidden in pieces:
        new, stopped = watch.feed("", text) if hidden else watch.feed(text)
        shown += new
        if stopped is not None:
            break
    assert (shown + watch.finish(), stopped) == spelled_cut(pieces, stops)


def test_examples() -> None:
    assert run(["Hel", "lo <", "/s> more"], ["</s>"]) == (["Hel", "lo ", "", ""], "</s>")
    assert run(["a <b", " c"], ["</s>"]) == (["a <b", " c", ""], None)
    assert run(["a<", "/", "s"], ["</s>"]) == (["a", "", "", "</s"], None)
    assert run(["xabcd"], ["abcd", "bc"]) == (["xa", ""], "bc")  # complete first
    assert run(["xabc"], ["bc", "abc"]) == (["x", ""], "abc")  # the longest of two at once
    assert run(["aab"], ["ab"]) == (["a", ""], "ab")
    assert run(["anything"], []) == (["anything", ""], None)


@pytest.mark.parametrize("stops", ["abc", [""], ["a", None], [b"a"], [7]])
def test_stops_are_non_empty_strings(stops: list[str]) -> None:
    with pytest.raises(ValueError, match="non-empty strings"):
        StopStrings(stops)
