"""Pages of pictures and figures for a browser, each in one file."""
