"""The site of the documentation: `make docs` builds it with Sphinx into dist/site.

The pages are the Markdown files of the repository in their places, so that their links work in both. What else they
link to, such as a manifest, is copied beside them. Generated while the site is built: the pages of the HTTP contract
and of the public modules, in docs/reference/generated.
"""

import sys
from pathlib import Path

from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent))
import generated

project = "Tequipy"
root_doc = "docs/site/index"
include_patterns = [
    "*.md",
    "docs/**",
    "packages/*/README.md",
    "apps/*/README.md",
    "tools/*/README.md",
    "deploy/README.md",
    "benchmarks/README.md",
    "clients/**/README.md",
    "examples/**/README.md",
]
exclude_patterns = ["**/.venv", "**/node_modules", "**/.*", ".*", "dist"]

extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_heading_anchors = 4
# Blocks without a kind, which are those of docstrings, are not highlighted.
highlight_language = "none"

# Docstrings: what is between backticks is code, as in Markdown.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_display_short_literal_types = True
python_maximum_signature_line_length = 88
add_module_names = False
toc_object_entries_show_parents = "hide"

html_theme = "furo"  # its style sheets and scripts are files of the site, and its fonts those of the reader's system
html_title = "Tequipy"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_additional_pages = {"index": "redirect.html"}
templates_path = ["templates"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_use_index = True
html_theme_options = {"navigation_with_keys": True}


def setup(app: Sphinx) -> None:
    """Generate pages before the sources are read, and add navigation to pages that have subpages."""
    app.connect("config-inited", lambda *_: generated.write_pages())
    app.connect("source-read", generated.add_subpages)
    app.connect("autodoc-process-signature", generated.shorten_signature)
