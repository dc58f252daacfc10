"""Tools of the proofs under faults: the shipped apps as processes, load at a constant rate, and its evaluation."""

from tequipy_devstack.proving.apps import Api, Deployment, Program
from tequipy_devstack.proving.certificates import Authority
from tequipy_devstack.proving.collector import TraceCollector, trace_collector
from tequipy_devstack.proving.load import Load, Route, Sample
from tequipy_devstack.proving.network import Balancer, Link, in_background
from tequipy_devstack.proving.outage import Findings, count, endure, failed, slowest
from tequipy_devstack.proving.smtp_stub import SmtpStub
from tequipy_devstack.proving.traffic import HEALTH, REGISTER, traffic
from tequipy_devstack.proving.waiting import eventually, fetch

__all__ = [
    "HEALTH",
    "REGISTER",
    "Api",
    "Authority",
    "Balancer",
    "Deployment",
    "Findings",
    "Link",
    "Load",
    "Program",
    "Route",
    "Sample",
    "SmtpStub",
    "TraceCollector",
    "count",
    "endure",
    "eventually",
    "failed",
    "fetch",
    "in_background",
    "slowest",
    "trace_collector",
    "traffic",
]
