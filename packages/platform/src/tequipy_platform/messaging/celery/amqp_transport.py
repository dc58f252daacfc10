"""kombu's transport for RabbitMQ, which gives up on a broker that hangs."""

from typing import Any

from kombu.transport import pyamqp


class Transport(pyamqp.Transport):
    """kombu's transport whose `read_timeout` also ends waits for answers outside of Celery's event loop."""

    def establish_connection(self) -> Any:  # noqa: ANN401 -- a connection of py-amqp
        """Connect to the broker."""
        connection = super().establish_connection()
        # py-amqp waits for ever otherwise, because it takes the timeout of the socket for an interrupted read.
        connection.transport.raise_on_initial_eintr = True
        return connection
