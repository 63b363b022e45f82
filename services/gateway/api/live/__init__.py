"""Live events by Socket.IO.

``wire`` is what makes Engine.IO safe to offer to strangers: bounds, deadlines, and frames that are
looked at before anything is made of them. ``client`` is one connected client and what waits for it.
``server`` lets clients in, listens to what they want, and sends them away.
"""
