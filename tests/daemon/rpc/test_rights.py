"""Who may do what, by uid; and that what a worker has started may do nothing."""

from __future__ import annotations

import os

from ccd_daemon.config import ServerSettings
from ccd_daemon.rpc.identity import Identity
from ccd_daemon.rpc.rights import Rights

OTHER_UID = 4242
RIGHTS = Rights(ServerSettings(admin_uids=[8], tenant_uids=[9]), session_uids=[10])


def test_who_may_do_what() -> None:
    allowed = {
        "administer": {0, os.getuid(), 8},
        "speak": {0, os.getuid(), 9},
        "agents": {0, os.getuid(), 9, 10},
    }
    for uid in (0, os.getuid(), 8, 9, 10, OTHER_UID):
        peer = Identity(1, uid, 0, outside=True)
        assert RIGHTS.may_administer(peer) == (uid in allowed["administer"])
        assert RIGHTS.may_speak_for_others(peer) == (uid in allowed["speak"])
        assert RIGHTS.may_use_agents(peer) == (uid in allowed["agents"])


def test_what_a_worker_has_started_may_nothing_whoever_it_runs_as() -> None:
    for uid in (0, os.getuid(), 8, 9, 10):
        inside = Identity(1, uid, 0)
        assert not RIGHTS.may_administer(inside), "what ccd started is a tool of a model"
        assert not RIGHTS.may_speak_for_others(inside)
        assert not RIGHTS.may_use_agents(inside)
