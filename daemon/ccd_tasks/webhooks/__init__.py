"""Webhooks by the Standard Webhooks convention: signed, delivered by durable steps, never to private addresses."""
