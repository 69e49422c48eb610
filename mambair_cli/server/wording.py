"""Messages in the words of HTTP: those of other packages name options of the command line."""

import re

from starlette.requests import Request

from mambair_cli.errors import MambairError
from mambair_cli.images.signatures import ClipFoundError
from mambair_cli.server.protocol import COMMAND_HEADER
from mambair_cli.server.query import QUERIES

_LARGER = ", or allow more with --max-pixels, which most commands have"
_PHRASES = {
    "--background white fills": "background=white fills",
    "--damaged of upscale, denoise and dejpeg": "damaged=true of upscale, denoise and dejpeg",
    "use --device cpu": "start the server with --device cpu",
    "pass the right one with --weights": "name another model",
    "`mambair models add NAME FILE` gives a file a name": "/v1/models shows all names",
    "`mambair models list` shows all names": "/v1/models shows all names",
}
_OPTIONS = {name.replace("_", "-") for query in QUERIES.values() for name in query.model_fields}
_OPTION = re.compile(rf"--({'|'.join(sorted(_OPTIONS, key=len, reverse=True))})\b")


def phrase_error(error: MambairError, request: Request) -> str:
    """Return the message of an error for a client: its remedies are those that the client has.

    Args:
        error: The error.
        request: The request; one of a command, which has the options, gets the message as it is.
    """
    message = str(error)
    if COMMAND_HEADER in request.headers:
        return message
    if isinstance(error, ClipFoundError):
        return "cannot read the image: it is a clip, and a server takes no clips; `mambair` restores them"
    if _LARGER in message:
        return message.replace(_LARGER, _allow_more(request))
    for phrase, other in _PHRASES.items():
        message = message.replace(phrase, other)
    return _OPTION.sub(lambda found: found[1].replace("-", "_"), message)


def _allow_more(request: Request) -> str:
    if "max_pixels" in request.query_params:
        return ", or give a larger max_pixels, up to the server's --max-pixels"
    return ", or start the server with a larger --max-pixels"
