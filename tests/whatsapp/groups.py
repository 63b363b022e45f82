"""Groups: who is in them, and what is told when that changes. The queries are in ``group_queries``.

Since WhatsApp hides numbers, a group is addressed by LID (``addressing_mode=lid``): its members are
listed by LID with the number beside it, and messages name their author so. Groups made before that
are addressed by number; ``by_lid`` says which, and the admin API can make either.
"""

import secrets
from dataclasses import dataclass, field
from time import time

from tests.whatsapp.jid import GROUPS, Jid

ADMIN, SUPERADMIN = "admin", "superadmin"


@dataclass
class Group:
    """A group. ``members`` gives each member's number its role, empty if it has none."""

    jid: Jid
    subject: str
    creator: str
    by_lid: bool = True
    created: int = field(default_factory=lambda: int(time()))
    members: dict[str, str] = field(default_factory=dict)
    description: str = ""
    description_id: str = ""
    announcement: bool = False
    locked: bool = False
    expiration: int = 0
    member_add_mode: str = "all_member_add"
    approval: bool = False
    picture: str | None = None
    # The code in ``https://chat.whatsapp.com/…``.
    invite: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    # Codes of invite links that were reset: to be told apart from those that never were.
    revoked: set[str] = field(default_factory=set)

    def may_write(self, number: str) -> bool:
        """Whether a member may send messages; in an announcement group only admins may."""
        return number in self.members and (not self.announcement or self.is_admin(number))

    def may_edit(self, number: str) -> bool:
        """Whether a member may change what the group is called and the like."""
        return number in self.members and (not self.locked or self.is_admin(number))

    def is_admin(self, number: str) -> bool:
        return bool(self.members.get(number))

    def reset_invite(self) -> str:
        """A new invite link, in place of the one there was."""
        self.revoked.add(self.invite)
        self.invite = secrets.token_urlsafe(16)
        return self.invite


def new_group(subject: str, creator: str, *, by_lid: bool = True) -> Group:
    """A group with its creator in it."""
    user = str(120363 * 10**12 + secrets.randbelow(10**12))
    group = Group(jid=Jid(user, GROUPS), subject=subject, creator=creator, by_lid=by_lid)
    group.members[creator] = SUPERADMIN
    return group
