"""What a photograph's file says of it: EXIF, XMP, IPTC and a profile, as cameras and programs write them."""

from PIL import Image, ImageCms

MAKE, ORIENTATION, COPYRIGHT = 0x010F, 0x0112, 0x8298
EXIF_PART, GPS_PART = 0x8769, 0x8825
EXPOSURE, MAKER, WIDTH, HEIGHT, INTEROPERABILITY = 0x829A, 0x927C, 0xA002, 0xA003, 0xA005

ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GRAY_ICC = ICC[:16] + b"GRAY" + ICC[20:]
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
    b"</rdf:RDF></x:xmpmeta>"
)
IPTC = b"Photoshop 3.0\x008BIM\x04\x04\x00\x00\x00\x00\x00\x0c\x1c\x02\x05\x00\x07Meadows"
MAKER_NOTE = bytes(range(256))


def exif_block(orientation: int = 1, order: str = "MM", thumbnail: bool = False) -> bytes:
    """Return a block of EXIF, without the name in front that JPEG files give it.

    Args:
        orientation: 1 to 8, as EXIF numbers them.
        order: Byte order, "II" or "MM".
        thumbnail: Whether it points to a second directory, that of a thumbnail.
    """
    exif = Image.Exif()
    exif.endian = "<" if order == "II" else ">"
    exif[MAKE], exif[COPYRIGHT], exif[ORIENTATION] = "Camera works", "A. Nobody", orientation
    part = exif.get_ifd(EXIF_PART)
    part[EXPOSURE], part[MAKER], part[WIDTH], part[HEIGHT] = (1, 250), MAKER_NOTE, 1, 1
    exif.get_ifd(GPS_PART)[2] = (48.0, 8.0, 12.5)
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    assert block.startswith(order.encode())
    if thumbnail:  # at the end, pointed to from behind the first directory's entries
        order_name = "little" if order == "II" else "big"
        pointer = 10 + 12 * int.from_bytes(block[8:10], order_name)
        block = block[:pointer] + len(block).to_bytes(4, order_name) + block[pointer + 4 :] + bytes(6)
    return block
