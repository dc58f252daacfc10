"""The adapters of the ports: memory, Redis, the channel and Prometheus."""
