"""A hook of MkDocs: formulas become MathML when the site is built.

Browsers draw MathML themselves, so that the pages need no script from elsewhere.
"""

import html
import re
from typing import Any

from latex2mathml.converter import convert

_INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
_BLOCK = re.compile(r'<div class="arithmatex">\\\[(.*?)\\\]</div>', re.DOTALL)


def on_page_content(content: str, **_: Any) -> str:
    """Return the page's HTML with its formulas as MathML."""
    content = _INLINE.sub(lambda found: convert(html.unescape(found[1])), content)
    return _BLOCK.sub(
        lambda found: convert(html.unescape(found[1].strip()), display="block"), content
    )
