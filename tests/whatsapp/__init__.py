"""A WhatsApp on one's own machine, for real clients to connect to. See ``README.md``.

Reading order: ``jid``, ``stanza`` and ``codec`` (what is said), ``noise`` and ``connection`` (how
it travels), ``accounts``, ``devices`` and ``world`` (who there is), ``router`` (who answers), then
a module for each family of stanzas, and last ``faults`` and ``admin`` (how tests take part).
"""
