"""The daemon serves exactly the methods that are described, as they are described."""

from __future__ import annotations

import inspect
from typing import get_type_hints

from ccd_daemon.rpc.call import handlers
from ccd_daemon.rpc.methods.admin import AdminMethods
from ccd_daemon.rpc.methods.cache import CacheMethods
from ccd_daemon.rpc.methods.chat import ChatMethods
from ccd_daemon.rpc.methods.conversation import ConversationMethods
from ccd_daemon.rpc.methods.daemon import DaemonMethods
from ccd_daemon.rpc.methods.model import ModelMethods
from ccd_daemon.rpc.methods.session import SessionMethods
from ccd_protocol.methods import METHODS

NOUNS = {
    "admin": AdminMethods,
    "cache": CacheMethods,
    "chat": ChatMethods,
    "conversation": ConversationMethods,
    "daemon": DaemonMethods,
    "model": ModelMethods,
    "session": SessionMethods,
}


def test_each_method_has_a_handler_and_each_handler_is_a_method() -> None:
    served = {
        f"{noun}.{verb}"
        for noun, kind in NOUNS.items()
        for verb, _ in inspect.getmembers(kind, inspect.isfunction)
        if not verb.startswith("_")
    }
    assert served == set(METHODS) == set(handlers(NOUNS))


def test_handlers_are_flagged_as_their_methods_are() -> None:
    for name, handler in handlers(NOUNS).items():
        method = METHODS[name]
        assert (handler.streams, handler.admin) == (method.streams, method.admin), name
        assert handler.bare == (not method.names), name
        assert handler.at_once != inspect.iscoroutinefunction(handler.run), name


def test_handlers_answer_with_what_is_described() -> None:
    for name, handler in handlers(NOUNS).items():
        assert get_type_hints(handler.run)["return"] is METHODS[name].result, name
