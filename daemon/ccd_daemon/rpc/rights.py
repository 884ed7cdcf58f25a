"""Who may do what on the socket, by what the kernel says of the peer. What a worker has started may do nothing of this.

Who may connect at all is the server's matter.
"""

from __future__ import annotations

import os
from collections.abc import Collection

from ccd_daemon.config import ServerSettings
from ccd_daemon.rpc.identity import Identity


class Rights:
    """The rules. `session_uids` are the users who may have sessions, besides those who may speak for others."""

    def __init__(self, settings: ServerSettings, session_uids: Collection[int] = ()) -> None:
        self._admin_uids = {0, os.getuid(), *settings.admin_uids}
        self._tenant_uids = {0, os.getuid(), *settings.tenant_uids}
        self._session_uids = self._tenant_uids.union(session_uids)

    def may_administer(self, identity: Identity) -> bool:
        """Returns whether the peer may use admin methods."""
        return identity.outside and identity.uid in self._admin_uids

    def may_use_agents(self, identity: Identity) -> bool:
        """Returns whether the peer may have sessions, whose tools run as the daemon's user."""
        return identity.outside and identity.uid in self._session_uids

    def may_speak_for_others(self, identity: Identity) -> bool:
        """Returns whether the peer may name a tenant (a gateway does)."""
        return identity.outside and identity.uid in self._tenant_uids
