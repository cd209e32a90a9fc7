"""Replies that a seed makes from a right one: cut, doubled, garbled, dripping, without an end."""

import random
from collections.abc import Iterator
from multiprocessing.connection import Connection

from support import misbehaving_server as ways
from support.misbehaving_server import CHUNKED, CLOSE, DEEP, HOLD, RESET, Step, misbehaving

EVENTS = b"".join([*ways.PARTS, *ways.TAIL])
WHOLE = CHUNKED + ways.chunk(EVENTS) + b"0\r\n\r\n"
USAGE = ways.event(ways.counted())

PIECES = [
    *(b"\0", b"\xff\xfe", b"\r\n", b"\n\n", b"\r\n\r\n", b"data:", b"data: [DONE]\n\n", b"{", b"}"),
    *(b"-1", b"NaN", b"1e999", b"-0.5", b'"1_0"', b"null", b"[]", b"9" * 5_000, b'"\\ud800"'),
    *(b"[" * 300, b'"error": {"a": 1}, ', b'"usage": [], ', b'"choices": 7, ', b"\x1b[2J"),
    *(b"Content-Length: -1\r\n", b"Transfer-Encoding: x\r\n", b"HTTP/1.1 100\r\n\r\n"),
]

NUMBERS = [
    *(b"-8", b"10000000", b"1000000000000000", b"1" + b"0" * 30, b"1e999", b"8.9", b'"1_0"'),
    *(b"null", b"true", b"[8]", b'{"a": 1}', b'"\\ud800"', b"NaN", b"Infinity", b"-0.0"),
]


def reply(seed: int, number: int, elsewhere: int) -> Iterator[Step]:
    """Return one of the replies of a seed.

    Args:
        seed: of all.
        number: which.
        elsewhere: a port of this machine to which a reply may want to lead.
    """
    chance = random.Random(seed * 1_000_003 + number)
    kind = chance.randrange(20)
    if kind == 0:
        yield from ways.endless(chance.choice([b"x", ways.PARTS[0], b"\n", b"data: {}\n\n"]))
    elif kind == 1:
        code = chance.choice([301, 302, 307, 308])
        other_url = f"http://127.0.0.1:{elsewhere}/v1/completions"
        yield f"HTTP/1.1 {code} x\r\nLocation: {other_url}\r\nContent-Length: 0\r\n\r\n".encode()
    elif kind == 2:
        yield CHUNKED + ways.chunk(b"data: " + DEEP + b"\n\n" + EVENTS) + b"0\r\n\r\n"
    elif kind < 6:
        usage = USAGE.replace(chance.choice([b"16", b"12"]), chance.choice(NUMBERS))
        yield CHUNKED + ways.chunk(EVENTS.replace(USAGE, usage)) + b"0\r\n\r\n"
    elif kind < 10:  # within the frame of HTTP, so that the events are read
        yield CHUNKED + ways.chunk(_garbled(EVENTS, chance)) + b"0\r\n\r\n"
    elif kind < 13:
        answer_parts = [*ways.PARTS, *ways.TAIL]
        yield CHUNKED + ways.chunk(b"".join(answer_parts[: chance.randrange(len(answer_parts))]))
    else:
        yield from _dripping(_garbled(WHOLE, chance), chance)
    yield chance.choice([CLOSE, CLOSE, RESET, HOLD])


def _garbled(content: bytes, chance: random.Random) -> bytes:
    text = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 5])):
        start = chance.randrange(len(text) + 1)
        length = chance.choice([0, 1, 1, 4, 40, 400])
        removed = text[start : start + length]
        piece = chance.choice(PIECES)
        inserted = chance.choice([b"", bytes(removed * 2), chance.randbytes(length), piece])
        text[start : start + length] = inserted
    return bytes(text)


def _dripping(content: bytes, chance: random.Random) -> Iterator[Step]:
    cuts = sorted(chance.sample(range(len(content)), min(len(content), chance.randrange(6))))
    for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True):
        yield content[start:end]
        yield 0.002


def serve(seed: int, elsewhere: int, connection: Connection) -> None:
    """Answer every request with the next reply until told to end, in this process."""
    with misbehaving() as server:
        server.way = lambda number: reply(seed, number, elsewhere)
        connection.send(server.base_url)
        connection.recv()
