"""How Sphinx builds the documentation, and checks of the pages that it leaves out."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

from sphinx.util import logging

import stable_softmax

project = "stable-softmax"
author = "The stable-softmax developers"
release = version = stable_softmax.__version__

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",  # formulas without a network; without this extension they come from MathJax's own server
    "sphinx_copybutton",
]
highlight_language = "none"  # what names no language is for the shell
nitpicky = True
# In docstrings, `softmax` is a link where it names something, and no more than emphasis where it is an argument.
default_role = "autolink"
nitpick_ignore_regex = [("py:obj", r"torch\..*")]

autodoc_typehints = "none"  # the docstrings say more
autosummary_generate = False
numpydoc_show_class_members = False

myst_enable_extensions = ["dollarmath", "amsmath", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_in_temp = True  # for what pages write
nb_execution_raise_on_error = True
nb_execution_timeout = 60
nb_merge_streams = True

html_theme = "furo"
html_title = "stable-softmax"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_copyright = False
html_copy_source = False
# Prompts and results stay behind.
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True

_log = logging.getLogger(__name__)
#: Of the tables that commands print.
_SHORTEST_RULE = 20


def setup(app):
    """Check the pages at the end."""
    app.connect("build-finished", _check_pages)


class _Page(HTMLParser):
    """The links, the anchors and the text of a page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors, self.text = set(), {""}, ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_data(self, data):
        """Take note of the text."""
        self.text += data

    def handle_starttag(self, tag, attrs):
        """Take note of links and anchors."""
        attributes = dict(attrs)
        self.anchors.add(attributes.get("id"))
        if tag == "a" and attributes.get("href"):
            self.links.add(attributes["href"])


def _check_pages(app, error):
    """Warn of links within the site that lead nowhere, and of tables that a command printed in pieces.

    Sphinx itself checks those links alone that it resolves. `%%bash` ends each piece of a command's output with a line.
    """
    if error or app.builder.format != "html":
        return
    pages = {path.resolve(): _Page(path) for path in Path(app.outdir).rglob("*.html")}
    for path, page in pages.items():
        rules = [line for line in page.text.splitlines() if line and not line.strip("─")]
        if rules and len(min(rules, key=len)) < _SHORTEST_RULE:
            _log.warning("a table is torn: %s", path.relative_to(app.outdir))
        for link in page.links:
            target, anchor = urldefrag(unquote(link))
            if ":" in target:  # elsewhere
                continue
            to = (path.parent / target).resolve() if target else path
            if not to.exists() or (to in pages and anchor not in pages[to].anchors):
                _log.warning("dead link to %s", link, location=str(path.relative_to(app.outdir).with_suffix("")))
