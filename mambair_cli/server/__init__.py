"""A server on this machine that keeps networks loaded: images come and go over HTTP, no path ever does."""
