"""How the pages are built: ``make docs``."""

import heterodyne

project = "heterodyne"
author = "The heterodyne developers"
release = heterodyne.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
html_theme = "furo"
html_title = f"heterodyne {release}"
html_static_path = ["static"]
html_css_files = ["pages.css"]
html_show_copyright = False
exclude_patterns = ["_build"]
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
nitpicky = False
myst_enable_extensions = ["colon_fence"]
