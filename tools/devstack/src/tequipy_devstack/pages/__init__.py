"""The web pages of the local stack: the mailbox, and the example of a front end."""

from tequipy_devstack.pages.front_end import FrontEnd
from tequipy_devstack.pages.mailbox import Mailbox
from tequipy_devstack.pages.server import PageServer

__all__ = ["FrontEnd", "Mailbox", "PageServer"]
