"""Webhooks tells customers what happened, signed, until they answer.

Owns      deliveries (one event addressed to one endpoint), their attempts, and how each endpoint
          is doing: its failures, its breaker, whether it was disabled.
Reads     gateway.webhooks (where to, for which events, with which secret), gateway.instances
          (names), gateway.organizations (what is kept, for how long), gateway.worker_orders
          (whether it may work).
Consumes  every event; test_endpoint.
Publishes webhook.disabled, webhook.recovered.
Promises  each event reaches each endpoint that wants it at least once, always under one
          ``webhook-id``, or its delivery ends as exhausted or disabled; an endpoint that hangs
          slows nobody else; nothing is posted to a private address. Order is not promised.

An endpoint is sent what is told from the moment on at which it was made, changed or switched on:
endpoints are looked up anew for every batch of events.
"""
