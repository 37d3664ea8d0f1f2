"""`python -m perceiver_io.cli`, for launchers such as torchrun."""

import sys

from perceiver_io.cli.main import main

sys.exit(main())
