"""Meta's WhatsApp Cloud API: the way that WhatsApp offers to businesses, as an engine.

There is no device and nothing to pair: an instance has a number at Meta and a token to speak for
it. What is sent is a request to the Graph API (``graph``), made from a message by ``outgoing``;
what is refused is told apart by Meta's codes (``refusals``). What comes in was POSTed to the
gateway, which has checked and stored it: ``arriving`` reads it (``incoming``) and offers it to the
sink for those sessions that are open here, and only what was committed is deleted.

Meta has no way to say that a request is a repeat. What was not answered is therefore unconfirmed;
each message carries the id under which it was handed over, and the receipts that come back with it
settle such a one after all.
"""
