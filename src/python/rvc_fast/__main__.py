"""python -m rvc_fast"""

import sys

from .cli import main

sys.exit(main())
