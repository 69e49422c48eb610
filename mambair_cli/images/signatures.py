"""Find the format of a file by its first bytes, whatever its name says."""

import re
from typing import Any

from mambair_cli.errors import ImageError
from mambair_cli.images import targa
from mambair_cli.system.clips import CLIP_SUFFIXES
from mambair_cli.system.wording import enumerate_names

SIGNATURE_BYTES = 16
START_BYTES = 1024  # from which :func:`identify` tells a format, but for TGA's
HEIF_SUFFIXES = (".heic", ".heif", ".heics", ".heifs", ".hif", ".hifc")
READABLE_SUFFIXES = frozenset(
    {
        *(
            ".png",
            ".jpg",
            ".jpeg",
            ".jpe",
            ".jfif",
            ".mpo",
            ".webp",
            ".tif",
            ".tiff",
            ".gif",
            ".avif",
            ".bmp",
            ".dds",
            ".pcx",
            *targa.SUFFIXES,
        ),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpf", ".jpx", ".exr", ".ico"),
        *HEIF_SUFFIXES,
    }
)
# Suffixes of images that are read, or are only known.
IMAGE_SUFFIXES = READABLE_SUFFIXES | {
    *(
        ".apng",
        ".jxl",
        ".psd",
        ".psb",
        ".xcf",
        ".svg",
        ".pdf",
        ".eps",
        ".qoi",
        ".jxr",
        ".hdr",
        ".pam",
        ".pfm",
    ),
    *(".ktx", ".ktx2", ".vtf", ".blp", ".pvr", ".astc", ".cur", ".icns", ".dng", ".cr2", ".cr3", ".nef"),
    *(".arw", ".raf", ".orf", ".rw2"),
}

_READABLE = {
    "png": rb"\x89PNG\r\n\x1a\n",
    "jpeg": rb"[\s\xef\xbb\xbf]{0,8}\xff\xd8(\xff|.{1,8}\xff[\xc0-\xfe])",  # stray bytes are skipped
    "webp": rb"RIFF....WEBP",
    "tiff": rb"II[*+]\0|MM\0[*+]",
    "gif": rb"GIF8[79]a",
    "avif": rb"....ftyp(avi[fs]|ma1[ab])",
    "heic": rb"....ftyp(hei[cxms]|hev[cxms]|mi[af]1|msf1)",
    "bmp": rb"BM",
    "dds": rb"DDS ",
    "pcx": rb"\x0a[\0\2\3\5]\x01[\1\2\4\x08]",
    "ppm": rb"P[1-6]\s",
    "jpeg2000": rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51",
    "exr": rb"v/1\x01",
    "ico": rb"\x00\x00\x01\x00[^\0]\0",
}
_SHARED_BRANDS, _AVIF_BRANDS = (b"mif1", b"msf1"), (b"avif", b"avis")
_UNREADABLE = {
    "JPEG XL": rb"\xff\x0a|\0\0\0\x0cJXL ",
    "PAM or PFM": rb"P[7Ff]\s",
    "a Photoshop file": rb"8BPS",
    "a GIMP file": rb"gimp xcf",
    "PDF": rb"%PDF",
    "PostScript": rb"%!PS",
    "SVG or XML": rb"(\xef\xbb\xbf)?\s*<(\?xml|svg|!DOCTYPE svg)",
    "QOI": rb"qoif",
    "JPEG XR": rb"II\xbc",
    "Radiance HDR": rb"#\?R(ADIANCE|GBE)",
    "a texture of Khronos (KTX)": rb"\xabKTX ",
    "a texture of Valve (VTF)": rb"VTF\0",
    "a texture of Blizzard (BLP)": rb"BLP[0-2]",
    "a texture of PowerVR (PVR)": rb"PVR[\2\3]",
    "an ASTC texture": rb"\x13\xab\xa1\x5c",
    "a Windows cursor": rb"\0\0\x02\0[^\0]\0",
    "an icon of macOS": rb"icns",
    "a raw file of a camera": rb"FUJIFILMCCD-RAW|....ftypcrx ",
    "FITS": rb"SIMPLE  =",
}
_ARCHIVES = {
    "ZIP": rb"PK(\x03\x04|\x05\x06)",  # as in .cbz
    "RAR": rb"Rar!\x1a\x07",
    "7z": rb"7z\xbc\xaf'\x1c",
    "gzip": rb"\x1f\x8b\x08",
    "bzip2": rb"BZh[1-9]1AY&SY",
    "xz": rb"\xfd7zXZ\0",
    "Zstandard": rb"\x28\xb5\x2f\xfd",
}
_TAR, _TAR_AT = b"ustar", 257  # bytes
TARGA = "tga"
# Matroska, MP4 and MOV, AVI, FLV, WMV, MPEG, Ogg and transport streams; some begin like formats above.
_CLIP = (
    rb"\x1aE\xdf\xa3|....ftyp(?!crx |jxl )|....(moov|mdat|wide|free|skip)|RIFF....AVI |FLV\x01|0&\xb2u"
    rb"|\0\0\x01[\xb3\xba]|OggS|G[@-_].[\x10-\x3f]\0|YUV4MPEG2 "
)


class ClipFoundError(ImageError):
    """A file is a clip, and no image; commands that take no clips say what works instead."""


def is_clip(head: bytes) -> bool:
    """Tell whether a file that begins with these bytes is a clip, or sound, and no image."""
    is_image = any(re.match(pattern, head, re.DOTALL) for pattern in _READABLE.values())
    return not is_image and re.match(_CLIP, head, re.DOTALL) is not None


def _find_archive(data: Any) -> str | None:
    """Return the kind of an archive, or of another compressed file; None for anything else."""
    if bytes(data[_TAR_AT : _TAR_AT + len(_TAR)]) == _TAR:
        return "tar"
    head = bytes(data[:SIGNATURE_BYTES])
    return next((kind for kind, pattern in _ARCHIVES.items() if re.match(pattern, head, re.DOTALL)), None)


def _is_compatible_with_avif(data: Any) -> bool:
    """Tell whether a file whose main brand fits both AVIF and HEIC names AVIF among the others.

    Source: ISO/IEC 14496-12, 4.3.
    """
    end = min(int.from_bytes(data[:4], "big"), START_BYTES)
    brands = [bytes(data[at : at + 4]) for at in (8, *range(16, end, 4))]
    return brands[0] in _SHARED_BRANDS and any(brand in _AVIF_BRANDS for brand in brands)


def identify(data: Any, name: str) -> str:
    """Return the format of a file by its first bytes; TGA files by their names or last bytes.

    Args:
        data: Bytes, in memory or of a file.
        name: Name of the file.

    Raises:
        ImageError: The file is empty, or its format is not supported.
        ClipFoundError: It is a clip.
    """
    head = bytes(data[:SIGNATURE_BYTES])
    if not head:
        raise ImageError(f"cannot read {name}: it is empty; try another copy of it")
    for format, pattern in _READABLE.items():
        if re.match(pattern, head, re.DOTALL):
            return "avif" if format == "heic" and _is_compatible_with_avif(data) else format
    if targa.is_targa(data, name):
        return TARGA
    for kind, pattern in _UNREADABLE.items():
        if re.match(pattern, head, re.DOTALL):
            raise ImageError(
                f"cannot read {name}: it is {kind}, which mambair does not read; "
                "convert it to PNG or TIFF first"
            )
    if (kind := _find_archive(data)) is not None:
        raise ImageError(
            f"cannot read {name}: it is an archive ({kind}); unpack it, and give its images or the folder"
        )
    if name.lower().endswith(CLIP_SUFFIXES) or is_clip(head):
        raise ClipFoundError(
            f"cannot read {name}: it is a clip, no image; upscale, denoise and dejpeg restore clips that are "
            "named alone, by a suffix such as .mp4"
        )
    if name.lower().endswith(targa.SUFFIXES):
        raise ImageError(
            f"cannot read {name}: its header is not that of a TGA file of 8, 16, 24 or 32 bits; "
            "try another copy, or convert it to PNG first"
        )
    raise ImageError(
        f"cannot read {name}: it is no image of a known kind; convert it to PNG first "
        f"({enumerate_names([*_READABLE, TARGA])} can be read)"
    )
