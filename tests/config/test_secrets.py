"""Secrets are hidden in any form that a server may repeat."""

import pytest

from etl.config.settings import Redactor

SECRET = "k3y/with+signs=="  # an invented one


@pytest.mark.parametrize(
    "text",
    [
        f"you sent {SECRET}!",
        "you sent k3y%2Fwith%2Bsigns%3D%3D",
        "you sent k3y%252Fwith%252Bsigns%253D%253D",
        "you sent k3y%2fwith%2bsigns%3d%3d",
    ],
)
def test_known_values_are_hidden(text: str) -> None:
    """A known secret is hidden as it is and percent-encoded once or twice."""
    assert Redactor([SECRET]).text(text).startswith("you sent ***")


@pytest.mark.parametrize(
    "header",
    [
        'OAuth oauth_nonce="n0nce", oauth_signature="s1gn%3D"',
        "Bearer t0ken.t0ken.s1gn",
        "bearer t0ken",
    ],
)
def test_authorization_headers_are_hidden(header: str) -> None:
    """Text that looks like the header's credentials is hidden, even if it is not a known secret."""
    shown = Redactor().text(f"got Authorization: {header}")
    assert not any(part in shown for part in ("n0nce", "s1gn", "t0ken"))


def test_parameters_are_hidden() -> None:
    """Single OAuth parameters in a query are hidden too."""
    assert "s1gn" not in Redactor().text("a=1&oauth_signature=s1gn&b=2")


def test_plain_texts_stay() -> None:
    """Texts without a secret do not change; short values are not hidden."""
    redactor = Redactor(["true", "eu"])
    for text in (
        "true in eu",
        "no OAuth 2.0 token",
        "authentication: 401",
        "check the oauth keys, bearer of bad news",
    ):
        assert redactor.text(text) == text


def test_trees_are_walked() -> None:
    """Secrets in lists and dicts are hidden; numbers and keys do not change."""
    tree = {"a": [f"x{SECRET}", 1, None], "b": {"c": SECRET}}
    assert Redactor([SECRET]).tree(tree) == {"a": ["x***", 1, None], "b": {"c": "***"}}
