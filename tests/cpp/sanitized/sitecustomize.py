"""Makes Python take the extension named by RVC_TEST_EXTENSION for rvc_fast's own; on PYTHONPATH only in tests."""

import importlib.util
import os
import sys
from importlib.machinery import ModuleSpec


class _Finder:
    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != "rvc_fast._ext":
            return None
        return importlib.util.spec_from_file_location(name, os.environ["RVC_TEST_EXTENSION"])


sys.meta_path.insert(0, _Finder())
