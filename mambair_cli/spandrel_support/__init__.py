"""MambaIR for programs that load their networks by the package spandrel."""

TYPE_CHECKING = False  # as in the package above: importing typing takes time

if TYPE_CHECKING:
    from spandrel import ArchRegistry  # pyright: ignore[reportMissingImports]: optional

__all__ = ["install"]


def install(registry: "ArchRegistry | None" = None) -> None:
    """Let spandrel's loader recognise MambaIR, its U-Net and MambaIRv2, and run them with this package.

    To call it again does nothing. An architecture of the same name that is there already stays.

    Args:
        registry: Registry that the loader uses; by default spandrel's ``MAIN_REGISTRY``, which all loaders
            use that are not given another.

    Raises:
        MambairError: spandrel is not installed, or cannot be imported.
    """
    try:
        import spandrel  # pyright: ignore[reportMissingImports]: optional
    except ImportError as error:
        from mambair_cli.errors import MambairError

        raise MambairError(_explain(error)) from error
    from mambair_cli.spandrel_support.architectures import ARCHITECTURES

    supported = map(spandrel.ArchSupport.from_architecture, ARCHITECTURES)
    to = spandrel.MAIN_REGISTRY if registry is None else registry  # an empty one counts as false
    to.add(*supported, ignore_duplicates=True)


def _explain(error: ImportError) -> str:
    missing = (error.name or "").partition(".")[0]
    if missing == "spandrel":
        return "the package spandrel is missing: pip install 'mambair-cli[spandrel]' brings it"
    advice = f"; pip install {missing} may help" if missing else ""
    return f"the package spandrel cannot be imported: {error}{advice}"
