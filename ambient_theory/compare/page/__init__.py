"""From findings to one self-contained page: context, figures, captions, templates."""
