"""HTML in which every text is escaped unless it was made here."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

_EMPTY = frozenset({"img", "br", "hr", "meta"})


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def escaped(child: object) -> Html:
    """Turn a value into HTML; None is nothing, and ``Html`` stays as it is."""
    if child is None:
        return Html("")
    return child if isinstance(child, Html) else Html(html.escape(str(child)))


def join(children: Iterable[object], between: str = "") -> Html:
    """Put values next to each other."""
    return Html(between.join(escaped(child) for child in children))


def tag(name: str, *children: object, **attributes: object) -> Html:
    """Return an element.

    Args:
        name: Name of the element.
        children: What is inside.
        attributes: Attributes; a trailing underscore is dropped (``class_``), and one
            that is None or False is left out.
    """
    words = [name]
    for key, value in attributes.items():
        if value is not None and value is not False:
            words.append(f'{key.rstrip("_")}="{html.escape(str(value))}"')
    start = " ".join(words)
    if name in _EMPTY:
        return Html(f"<{start}>")
    return Html(f"<{start}>{join(children)}</{name}>")


def section(anchor: str, title: str, *children: object) -> Html:
    """Return a part of the page, which links can reach by its anchor."""
    return tag("section", tag("h2", title), *children, id=anchor)


def bullets(items: Sequence[object], class_: str | None = None) -> Html:
    """Return a list; nothing if it would be empty."""
    if not items:
        return Html("")
    return tag("ul", *(tag("li", item) for item in items), class_=class_)


def facts(pairs: Iterable[tuple[str, object]]) -> Html:
    """Return names and values; pairs whose value is None are left out."""
    kept = [(name, value) for name, value in pairs if value is not None]
    return tag("dl", *(tag("div", tag("dt", n), tag("dd", v)) for n, v in kept), class_="facts")


def table(
    head: Sequence[Html], rows: Iterable[Html], caption: str | None = None, class_: str = ""
) -> Html:
    """Return a table that scrolls by itself where the page is narrow.

    Args:
        head: Rows of the head.
        rows: Rows of the body.
        caption: Sentence above the table.
        class_: Classes of the table.
    """
    content = tag(
        "table",
        tag("caption", caption) if caption else None,
        tag("thead", *head),
        tag("tbody", *rows),
        class_=class_ or None,
    )
    return tag("div", content, class_="scroll")


def folded(title: str, *children: object) -> Html:
    """Return a part that is opened by a click."""
    return tag("details", tag("summary", title), *children)
