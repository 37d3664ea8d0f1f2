"""The `perceiver-io` command, beside the package: to say a version, nothing that takes seconds need be imported."""

import sys
from importlib.metadata import version

__all__ = ["main"]


def main() -> int:
    """Runs the command, and returns its exit status."""
    if sys.argv[1:] == ["--version"]:
        print(f"perceiver-io {version('perceiver-io-toolkit')}")
        return 0
    try:
        from perceiver_io.cli import main
    except KeyboardInterrupt:
        print("perceiver-io: interrupted.", file=sys.stderr)
        return 130

    return main()
