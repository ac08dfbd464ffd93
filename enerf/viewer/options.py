"""Options of the viewer. Imports no torch."""

from dataclasses import dataclass

from enerf.config.options import option
from enerf.core.errors import InputError, shown

PORTS = (1 << 16) - 1
HOST = "address to listen on; other computers reach the viewer only at another than 127.0.0.1, with a printed token"
PORT = "port to listen on; 0: the first free one from 7007 on"


@dataclass(frozen=True)
class ViewOptions:
    """viewer."""

    host: str = option("127.0.0.1", HOST, affects="neutral")
    port: int = option(0, PORT, at_least=0, at_most=PORTS, affects="neutral")
    size: int = option(
        0,
        "longest side of exact pictures in pixels, which browsers can change; 0: that of the photographs, at most 1008",
        at_least=0,
        at_most=2016,
        affects="neutral",
    )
    resolution: int = option(
        192, "shapes: number of cells along the longest side of the mesh", at_least=8, at_most=1024, affects="neutral"
    )
    datadir: str = option(
        "", "new path of the scene or the mesh, if it has moved since training", affects="neutral", is_path=True
    )
    device: str = option("auto", "device: auto, cpu, cuda, cuda:1 ...", affects="neutral")


@dataclass(frozen=True)
class LiveOptions:
    """Viewer."""

    viewer: bool = option(False, "show the training in a browser (extra viewer)", affects="neutral")
    viewer_host: str = option("127.0.0.1", f"with --viewer: {HOST}", affects="neutral")
    viewer_port: int = option(0, f"with --viewer: {PORT}", at_least=0, at_most=PORTS, affects="neutral")

    def check(self) -> None:
        """Check that there is a viewer for which an address is chosen.

        Raises
        ------
        InputError
            If not.
        """
        for name in ("viewer_host", "viewer_port"):
            value = getattr(self, name)
            if not self.viewer and value != getattr(LiveOptions, name):
                raise InputError(f"option --{name}: found {shown(value)} without --viewer, expected both or none")
