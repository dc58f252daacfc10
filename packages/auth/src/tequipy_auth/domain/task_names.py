"""The names of auth's background tasks, for services that add messages and for the declarations in `tasks`."""

from typing import Final

SEND_MAIL: Final = "auth.send_mail"
PUBLISH_REVOCATIONS: Final = "auth.publish_revocations"
PURGE: Final = "auth.purge"
ERASE_ACCOUNTS: Final = "auth.erase_accounts"
DROP_PROFILE: Final = "auth.drop_profile"
DROP_ROLES: Final = "auth.drop_roles"
