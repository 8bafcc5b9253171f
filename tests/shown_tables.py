"""What stands in the HTML that notebooks are given."""

from html.parser import HTMLParser

NASTY = "<script>alert(1)</script>&\"'\x1b[31m\u202e$x^2$"
TAGS = {"table", "caption", "thead", "tbody", "tr", "th", "td"}


class Tags(HTMLParser):
    """The tags of a page, in their order, and what stands between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.said: list[str] = []
        self.attributes: list[dict[str, str | None]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.append(dict(attrs))

    def handle_data(self, data: str) -> None:
        self.said.append(data)


def table_of(shown: object) -> Tags:
    """What an object gives a notebook: one table with headings, in which nothing is markup, a formula or a colour."""
    text: str = shown._repr_html_()  # type: ignore[attr-defined]
    found = Tags(text)
    assert set(found.tags) <= TAGS
    assert found.tags.count("table") == 1
    # MathJax 2 and 3 leave alone what has these classes.
    assert found.attributes[0]["class"] == "tex2jax_ignore mathjax_ignore"
    headings = [attributes for tag, attributes in zip(found.tags, found.attributes, strict=True) if tag == "th"]
    assert headings
    assert all(attributes["scope"] in {"col", "row"} for attributes in headings)
    assert "color" not in text
    assert "background" not in text
    return found
