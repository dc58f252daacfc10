"""A report that a test requests over HTTP."""

from datetime import UTC, datetime, timedelta

import httpx

from tequipy_devstack.proving import eventually
from tequipy_devstack.proving.traffic import credentials


def requested_report(client: httpx.Client) -> bytes:
    """Request a report of the last two days as the deployment's administrator, and return it when it is done."""
    answer = client.post("/api/v1/auth/login", json=dict(credentials())).raise_for_status()
    bearer = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    today = datetime.now(UTC).date()
    days = {"from": f"{today - timedelta(days=1)}", "to": f"{today}"}
    body = {"kind": "user_activity", "format": "csv", **days}
    path = client.post("/api/v1/reports", json=body, headers=bearer).raise_for_status().headers["location"]
    eventually("the report is done", lambda: client.get(path, headers=bearer).json()["status"] == "done")
    return client.get(f"{path}/content", headers=bearer).raise_for_status().content
