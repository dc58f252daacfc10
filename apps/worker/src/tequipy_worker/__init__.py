"""The background app: worker, scheduler and outbox relay, composed of the same packages as the API."""
