"""What the surfaces that answer chats share: how a request is read, addressed and answered, streamed or whole.

Begin with `driver`. A surface (`chat`, `responses`, `anthropic`) fills it in and imports from here, never from another
surface; nothing here knows what any of them is called.
"""
