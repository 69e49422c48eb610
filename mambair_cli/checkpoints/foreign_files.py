"""Files that are no checkpoints: what they are, by their first bytes."""


def is_text(head: bytes) -> bool:
    """Tell whether a file begins like text, such as a web page in the place of a file to download."""
    return all(byte in b"\t\n\r" or byte >= 32 for byte in head)


def name_foreign(head: bytes) -> str:
    """Say what a file is that begins like no checkpoint."""
    if head.startswith(b"version https://git"):
        return "it is a Git LFS pointer, not the file itself; get the file with `git lfs pull`"
    if any(mark in head.lower() for mark in (b"<!doctype html", b"<html")):
        return "it is a web page, not a checkpoint; download the file itself"
    if is_text(head):
        return "it is a text file, not a checkpoint"
    return "it is neither a PyTorch nor a safetensors file"
