"""Sphinx's settings. Nothing is fetched, neither to build the site nor to read it: fonts are the reader's own."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import docstrings

project = "ambient"
author = "the authors of ambient"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
root_doc = "index"
myst_heading_anchors = 4

html_theme = "furo"
html_title = "ambient"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_show_search_summary = False  # summaries are fetched, which pages that were opened as files may not
highlight_language = "text"
smartquotes = False  # `--sigma` is no dash
pygments_style = "friendly"
pygments_dark_style = "native"

add_module_names = False
autodoc_typehints_format = "short"
autodoc_class_signature = "mixed"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
maximum_signature_line_length = 72
toc_object_entries = False


def setup(app):
    app.connect("autodoc-process-docstring", docstrings.process)
    app.connect("autodoc-process-signature", docstrings.signature)
