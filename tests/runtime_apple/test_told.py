"""What is said between a command's bytes is found in whatever pieces they come."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from claw_runtime_apple.scripts import MARK
from claw_runtime_apple.told import Scanner, Word

TOKEN = "5e" * 16
START = f"{MARK}{TOKEN} ".encode()

bodies = st.one_of(
    st.binary(max_size=80),
    st.sampled_from([b"", MARK.encode(), START[:-1], START[:9] + b"x", b"\n" + MARK.encode() * 3]),
)
words = st.text("0123456789abcdefghijklmnopqrstuvwxyz", max_size=20)


@given(st.lists(st.one_of(bodies, words.map(Word)), max_size=8), st.data())
def test_any_pieces(script: list[bytes | Word], data: st.DataObject) -> None:
    stream = b"".join(
        START + piece.text.encode() + b"\n" if isinstance(piece, Word) else piece
        for piece in script
    )
    # A last word behind which nothing is held back, as every stream of ours has it.
    stream += START + b"0\n"
    scanner, found = Scanner(TOKEN), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        found += scanner.feed(stream[:size])
        stream = stream[size:]
    body = b"".join(piece for piece in found if isinstance(piece, bytes))
    assert body == b"".join(piece for piece in script if isinstance(piece, bytes))
    said = [piece for piece in found if isinstance(piece, Word)]
    assert said == [*(piece for piece in script if isinstance(piece, Word)), Word("0")]


def test_nothing_is_held_back_without_a_reason() -> None:
    assert b"".join(p for p in Scanner(TOKEN).feed(b"abc\n") if isinstance(p, bytes)) == b"abc\n"
    scanner = Scanner(TOKEN)
    scanner.feed(START)
    assert any(isinstance(piece, Word) for piece in scanner.feed(b"x" * 200))
