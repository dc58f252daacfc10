"""PostgreSQL, Valkey and RabbitMQ as child processes on 127.0.0.1 that can be started, frozen, killed and restarted."""

from tequipy_devstack.servers.base import Server
from tequipy_devstack.servers.postgres import PostgresServer
from tequipy_devstack.servers.rabbitmq import RabbitmqServer
from tequipy_devstack.servers.valkey import ValkeyServer

__all__ = ["PostgresServer", "RabbitmqServer", "Server", "ValkeyServer"]
