"""python -m rvc_fast.cli"""

import sys

from . import main

sys.exit(main())
