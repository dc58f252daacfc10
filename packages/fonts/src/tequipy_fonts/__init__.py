"""Font files with free licences, for documents that name people in any script."""

from tequipy_fonts._files import BOLD, FALLBACKS, REGULAR

__all__ = ["BOLD", "FALLBACKS", "REGULAR"]
