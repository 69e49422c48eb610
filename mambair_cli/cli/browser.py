"""Open a page in the browser of the user."""

from pathlib import Path

from mambair_cli.cli.output import remark


def open_page(page: Path | str) -> None:
    """Open a page, or say that there is no browser.

    Args:
        page: A file, or an address.
    """
    import webbrowser

    address = page.resolve().as_uri() if isinstance(page, Path) else page
    if not webbrowser.open(address):
        remark(f"no browser was found: {address}; open it yourself")
