"""Sphinx configuration: Markdown by MyST, no extension that needs a network."""

from darklens import __version__

project = "darklens"
author = "The darklens developers"
copyright = f"2026, {author}"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
html_title = "darklens"
html_theme = "pydata_sphinx_theme"
html_static_path = ["_static"]
html_css_files = ["cards.css"]
html_theme_options = {"show_toc_level": 2, "navigation_with_keys": False, "navbar_center": []}
templates_path = ["_templates"]
html_sidebars = {"**": ["all-pages.html"]}  # the theme's own sidebar shows the pages of one section only
html_show_sourcelink = False
autodoc_typehints = "none"
autodoc_member_order = "bysource"
exclude_patterns = ["_build"]
