"""`python -m aos_mcp`: the same as the command `aos-mcp`."""

import sys

from aos_mcp.entry import main

sys.exit(main())
