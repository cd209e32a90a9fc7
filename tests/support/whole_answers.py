"""Answers that are whole: as they should be, or odd and marked by a code."""

import itertools

from support.misbehaving_server import (
    CHUNKED,
    CLOSE,
    DONE,
    END,
    HOLD,
    NEXT_S,
    OK,
    PARTS,
    TAIL,
    TOKENS,
    WHOLE,
    answer,
    chunk,
    chunked,
    closed,
    counted,
    delta,
    ended,
    ends,
    event,
    good,
    part,
    reasoned,
    spaced,
    stream,
    usage,
)

CUT_S = 0.001

FINE = [
    good("as it should be", answer()),
    good(
        "events cut anywhere",
        list(chunked(spaced([WHOLE[at : at + 40] for at in range(0, len(WHOLE), 40)], CUT_S))),
        first_s=CUT_S / 2,
    ),
    good("one byte a chunk", stream(*spaced(PARTS), *(bytes([byte]) for byte in b"".join(TAIL)))),
    good("CRLF", answer([one.replace(b"\n", b"\r\n") for one in PARTS])),
    good(
        "CR alone",
        answer(
            [one.replace(b"\n", b"\r") for one in PARTS], [b"".join(TAIL).replace(b"\n", b"\r")]
        ),
    ),
    good(
        "CRLF cut in two",
        stream(
            *itertools.chain.from_iterable(
                (NEXT_S, one[:-2] + b"\r", b"\n\r", b"\n") for one in PARTS
            ),
            *TAIL,
        ),
    ),
    good("no space after data:", answer([event(part(), b"data:")] * TOKENS)),
    good(
        "comments, ids, retries",
        answer([b": ping\n\nevent: x\nid: 1\nretry: 5\n" + one for one in PARTS]),
    ),
    good("keep-alives of data", answer([b"data:\n\ndata: ping\n\n" + one for one in PARTS])),
    good(
        "an event in several lines of data",
        answer([b'data: {"choices":\ndata: [{"text": "a"}]}\n\n'] * TOKENS),
    ),
    good(
        "no blank lines",
        answer(
            [event(part(), end=b"\n")] * TOKENS,
            [event(part("", "length"), end=b"\n"), event(counted(), end=b"\n"), DONE],
        ),
    ),
    good(
        "characters of several bytes",
        answer([event(part("語")).replace(b"\\u8a9e", "語".encode())] * TOKENS),
    ),
    good(
        "a running usage",
        answer([event(part(usage=usage(n + 1))) for n in range(TOKENS)], [END, DONE]),
    ),
    good("usage null till the end", answer([event(part(usage=None))] * TOKENS)),
    good("usage of text", ends(output="12", prompt="16")),
    good("usage in the last part", ended(event(part("", "length", usage=usage())))),
    *(
        good(
            f"usage after the end with an empty {kind}, as LiteLLM sends it",
            answer(
                [event(three)] * 4,
                [end, 1.0, event({"choices": [choice], "usage": usage()}), DONE],
            ),
            last_s=1.0,
            per_part=3.0,
        )
        for kind, three, end, choice in (
            ("text", part(" a b c"), END, {"index": 0}),
            (
                "delta",
                delta({"content": " a b c"}),
                event(delta({}, "length")),
                {"index": 0, "delta": {}},
            ),
        )
    ),
    good("two usages at the end", ended(END, event(counted(output=11)), event(counted()))),
    good(
        "a usage before the text, too",
        answer([event(counted(output=0)) + PARTS[0], *PARTS[1:]]),
    ),
    good("parts without a choice", answer([event({"choices": []}) + one for one in PARTS])),
    good("an error that is none", answer([event(part(error=None))] * TOKENS)),
    good(
        "the role in each part of a chat",
        answer([event(delta({"role": "assistant", "content": "a"}))] * TOKENS),
    ),
    good(
        "calls of tools",
        answer([event(delta({"tool_calls": [{"index": 0}]}))] * TOKENS, [*TAIL]),
    ),
    good(
        "thought under another name",
        answer(
            [*[event(delta({"thinking": "a"}))] * 8, *[event(delta({"content": "a"}))] * 4], [*TAIL]
        ),
    ),
    good("usage after [DONE]", answer(tail=[END, DONE, event(counted())])),
    good("finish reason of no length till the end", answer([event(part(" a", ""))] * TOKENS)),
    good("no finish reason, but [DONE]", ended(event(counted()))),
    good("half characters", answer([event(part("")), event(part("ü"))] * 6)),
    good("no text at all", answer([event(part(""))] * TOKENS)),
    good(
        "a sign of life before the first token",
        [CHUNKED, chunk(event(part(""))), 0.05, *answer()[1:]],
        first_s=0.05,
    ),
    good(
        "signs of life between tokens of a chat",
        answer(
            [
                event(delta({})),
                event(delta({"content": None})),
                *[event(delta({"content": "a"})), event(delta({"content": ""}))] * TOKENS,
            ]
        ),
    ),
    good("prompts counted as 0", ends(prompt=0), "token_mismatch"),
    good(
        "one token an answer",
        stream(0.01, event(part(" a", "length")), event(counted(output=1)), DONE),
        asked=1,
        tokens=1,
        times=False,
    ),
    good(
        "usage long after the last token",
        stream(*spaced(PARTS), END, 1.0, event(counted()), DONE),
        last_s=1.0,
    ),
    good(
        "a line of 10 MB",
        answer([*PARTS[1:], event(part(" a", logprobs="x" * 10_000_000))]),
        per_part=1.0,
    ),
    good(
        "100 kB of headers",
        [
            OK
            + b"X: "
            + b"y" * 50_000
            + b"\r\nX: "
            + b"y" * 50_000
            + b"\r\nTransfer-Encoding: chunked\r\n\r\n",
            *answer()[1:],
        ],
    ),
    good(
        "chunk extensions and trailers",
        [
            CHUNKED,
            *[
                step if isinstance(step, float) else b"%x;a=b\r\n%b\r\n" % (len(step), step)
                for step in spaced([*PARTS, *TAIL])
                if not isinstance(step, str)
            ],
            b"0\r\nT: x\r\n\r\n",
        ],
    ),
    good("a length", [OK + b"Content-Length: %d\r\n\r\n" % len(WHOLE), *spaced([*PARTS, *TAIL])]),
    good(
        "no reason phrase", [b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n", *answer()[1:]]
    ),
    # Complete by the rules of HTTP.
    good("a body that ends with the connection", closed([*spaced(PARTS), *TAIL])),
    good("the same of HTTP/1.0", closed([*spaced(PARTS), *TAIL], b"HTTP/1.0 200 OK\r\n\r\n")),
    good("the same without [DONE]", closed([*spaced(PARTS), *TAIL[:2]])),
    good("whole chunks without [DONE]", answer(tail=TAIL[:2])),
    good("[DONE] and no last chunk", [*chunked([*spaced(PARTS), *TAIL], last=False), CLOSE]),
    good(
        "[DONE] and the connection left open",
        [*chunked([*spaced(PARTS), *TAIL], last=False), HOLD],
    ),
    good("no newline at the end", answer(tail=[END, event(counted()), b"data: [DONE]"])),
    good("a byte order mark", stream(b"\xef\xbb\xbf", *spaced(PARTS), *TAIL)),
    good("an interim answer before", [b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", *answer()]),
]

MARKED = [
    good(
        "stops early",
        answer(PARTS[:6], [event(part("", "stop")), event(counted(output=6)), DONE]),
        "length_mismatch",
        tokens=6,
    ),
    good(
        "all in one packet",
        [0.02, CHUNKED + chunk(WHOLE) + b"0\r\n\r\n"],
        "buffered_stream",
        per_part=12.0,
        times=False,
    ),
    good(
        "all at once in many writes",
        stream(0.02, WHOLE),
        "buffered_stream",
        per_part=12.0,
        times=False,
    ),
    good("six tokens at once", answer([b"".join(PARTS[:6])] * 2), per_part=6.0),
    good(
        "one answer in four without a token",
        lambda number: (
            answer()
            if number % 4
            else answer([], [event(part("", "stop")), event(counted(output=0)), DONE])
        ),
        "empty_answers",
        "length_mismatch",
        tokens=-1,
    ),
    good(
        "no answer with a token",
        answer([], [event(part("", "stop")), event(counted(output=0)), DONE]),
        "empty_answers",
        "length_mismatch",
        tokens=0,
        per_part=None,
        times=False,
    ),
    good(
        "the end's mark alone, which is a token and no text",
        answer([], [NEXT_S, event(part("", "stop")), event(counted(output=1)), DONE]),
        "length_mismatch",
        tokens=1,
        per_part=None,
        times=False,
    ),
    good(
        "the end's mark alone, and later usage with an empty choice",
        answer(
            [],
            [
                event(part("", "stop")),
                1.0,
                event({"choices": [{"index": 0}], "usage": usage(1)}),
                DONE,
            ],
        ),
        "length_mismatch",
        tokens=1,
        first_s=0.0,
        last_s=1.0,
        per_part=None,
        times=False,
    ),
    good(
        "one short",
        ends(output=11),
        "length_mismatch",
        "undercounted_answers",
        tokens=11,
        per_part=11 / 12,
    ),
    good(
        "one token counted for twelve",
        ends(output=1),
        "length_mismatch",
        "undercounted_answers",
        tokens=1,
        per_part=1 / 12,
        times=False,
    ),
    good(
        "each part twice",
        answer([b"".join([one, one]) for one in PARTS]),
        "undercounted_answers",
        per_part=1.0,
    ),
    good("prompts counted one longer", ends(prompt=17), "token_mismatch"),
    good(
        "prompts found in a prefix cache",
        ends(prompt_tokens_details={"cached_tokens": 15}),
        "cached_prompts",
    ),
    good(
        "the same in DeepSeek's words, beside the others' empty ones",
        ends(prompt_cache_hit_tokens=15, prompt_tokens_details={"cached_tokens": None}),
        "cached_prompts",
    ),
    good("the same in Moonshot's words", ends(cached_tokens=15), "cached_prompts"),
    good("the same in Anthropic's words", ends(cache_read_input_tokens=15), "cached_prompts"),
    good("a prompt's first token found there", ends(prompt_tokens_details={"cached_tokens": 1})),
    *(
        good(f"a cache that knows {odd}", ends(prompt_tokens_details={"cached_tokens": odd}))
        for odd in (None, -5, 17, 10**30, True, "much", [15], float("nan"))
    ),
    *(
        good(f"details that are {odd}", ends(prompt_tokens_details=odd))
        for odd in (None, 15, [15], "15")
    ),
    good(
        "no text but half a character, and usage with an empty choice",
        stream(0.01, END, event({"choices": [{"index": 0}], "usage": usage(2)}), DONE),
        "buffered_stream",
        asked=2,
        tokens=2,
        per_part=None,
        times=False,
    ),
    good("half a surrogate in a text", answer([event(part("\ud800"))] * TOKENS)),
    good("half a surrogate as finish reason", reasoned("\ud800")),
]
