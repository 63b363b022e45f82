"""WhatsApp by linked devices: whatsmeow, through neonize, in worker processes.

The supervisor's side knows what an instance needs and what has happened to it: ``engine`` is the
port, ``session`` one session from its opening to its end, ``pairing`` how its device is linked,
``offering`` its way to the sink, ``workers`` the processes, ``devices`` what is stored, ``wire``
the socket. ``proxies`` chooses the way out, ``tunnels`` goes it, and ``relay`` is all that a worker
sees of it.

A worker (``worker/``) holds up to twenty sessions. neonize may crash, and keeps threads that
nothing ends; so it is kept apart, ended without ceremony, and started again. What a worker knows is
either in WhatsApp's hands, or in whatsmeow's tables in PostgreSQL, so whichever process opens the
session next goes on.

- *A message is said once.* Before it is written to WhatsApp's socket the worker asks, with the id
  that it has, whether it may; the answer is a statement under the lease that also records the id.
- *What arrives is not lost.* Nothing is confirmed to WhatsApp before it is committed here; see
  ``worker/holding``.
- *Nobody is connected twice.* A worker that does not hear from its process ends, before the lease
  of that can have run out.
"""
