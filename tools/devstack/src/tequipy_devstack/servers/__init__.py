"""PostgreSQL and Valkey as our own child processes on 127.0.0.1: started, frozen, killed and started again at will."""

from tequipy_devstack.servers.base import Server
from tequipy_devstack.servers.postgres import PostgresServer
from tequipy_devstack.servers.valkey import ValkeyServer

__all__ = ["PostgresServer", "Server", "ValkeyServer"]
